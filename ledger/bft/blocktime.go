// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// The two kinds of transactions that are no entries. Neither begins like
// JSON, so an entry is never taken for one of them.
const (
	timePrefix = "zos-time:" // the block's time, always first, made by the proposer
	tickPrefix = "zos-tick:" // makes CometBFT make a block; means nothing in it
)

const (
	maxAhead  = 5 * time.Second
	maxBehind = 30 * time.Second
)

func timeTx(ms int64) []byte { return strconv.AppendInt([]byte(timePrefix), ms, 10) }

func parseTime(tx []byte) (int64, error) {
	ms, err := strconv.ParseInt(strings.TrimPrefix(string(tx), timePrefix), 10, 64)
	if err != nil || ms < 0 || !bytes.Equal(timeTx(ms), tx) {
		return 0, fmt.Errorf("the block does not begin with its time: %.40q", tx)
	}
	return ms, nil
}

func tickTx(ms int64) []byte { return strconv.AppendInt([]byte(tickPrefix), ms, 10) }

func isTick(tx []byte) bool {
	ms, err := strconv.ParseInt(strings.TrimPrefix(string(tx), tickPrefix), 10, 64)
	return err == nil && bytes.Equal(tickTx(ms), tx)
}

// honest says whether a proposer's time t is one to vote for, at ledger time
// `ledger` and with our own clock at `now`. Standing still at the ledger's
// time is always allowed: else a clock that was ahead and was set back would
// stop the ledger.
func honest(t, ledger, now int64, live bool) error {
	switch {
	case t == ledger:
		return nil
	case t < ledger:
		return fmt.Errorf("block time %d is before ledger time %d", t, ledger)
	case t > now+maxAhead.Milliseconds():
		return fmt.Errorf("block time %d is %d ms ahead of this clock", t, t-now)
	case live && t < now-maxBehind.Milliseconds():
		return fmt.Errorf("block time %d is %d ms behind this clock", t, now-t)
	}
	return nil
}
