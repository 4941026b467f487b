// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger"
)

const (
	// clockSkew is how far this clock may be behind those of validators. One that
	// is further behind would let an old log pass for a new one.
	clockSkew = time.Minute
	// emptyBlocks is how many blocks there may be after the last one that left
	// something in the log. CometBFT makes one after each that did. More come where
	// every entry of a block is refused, as it may be when two are submitted that
	// exclude each other, and each second while a block that is due gets its time
	// from a validator with a late clock: their number has no bound, and so no
	// margin above the log is enough. But a server that tells of so many is not
	// believed: what it tells is not proven, and the restored one would be silent
	// for as long.
	emptyBlocks = 1_000_000
)

// othersNewest is the newest block of a ledger's other validators, for one that is
// restored: the highest that any of the ledgers named proves or tells. The log
// alone does not say: its newest entry is in the last block that has one.
func (a *app) othersNewest(ctx context.Context, f ledgerFlags, halted bool) (int64, error) {
	c, err := a.sync(ctx, f)
	if err != nil {
		return 0, err
	}
	if now := time.Now(); !halted {
		if err := young(c, now); err != nil {
			return 0, coded(exitRefused, fmt.Errorf("nothing was restored, as it could sign twice: %w\nname with --ledger the validators that run, all of them; if the ledger really stands still, as too few of them do, --halted takes it as it is", err))
		}
	}
	logged, told := c.State().Height(), c.NewestBlock(ctx)
	switch {
	case told > logged+emptyBlocks:
		return 0, coded(exitRefused, fmt.Errorf("nothing was restored: a server tells of block %d, and the log's newest entry is in block %d; name other validators with --ledger", told, logged))
	case told >= max(logged, 1): // 0 is what mirrors know
		return told, nil
	case !halted:
		return 0, coded(exitRefused, fmt.Errorf("nothing was restored, as it could sign twice: of %s, none is a validator's server that has the newest blocks, and mirrors and folders do not know those without entries; name such a server with --ledger, alone or beside them", strings.Join(f.ledgers, ", ")))
	}
	a.clearBar()
	fmt.Fprintf(a.err, "warning: no validator's server tells its newest block; the log's newest entry is in block %d, and blocks after it are not known\n", logged)
	return logged, nil
}

// young refuses a log that stands still, by a clock that is not behind the log's.
func young(c *ledger.Client, now time.Time) error {
	if at := time.Unix(c.Checkpoint().FreshSec, 0); at.Sub(now) > clockSkew {
		return fmt.Errorf("the log was signed at %s, which is later than this clock says; set this clock", at.UTC().Format(time.RFC3339))
	}
	return c.Frozen(now)
}
