// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"log/slog"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"github.com/cometbft/cometbft/privval"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"

	"github.com/zos-node/zos/ledger"
)

// What a restored validator must not sign again: neither what it signed after the
// backup, nor a block that has no entries and that the log does not know, nor those
// that it may have signed before anybody else had the one before.
func TestRestoredSignsNothingTwice(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	fill(t, e, l, "d", 10)
	saved, _ := backup(t, dir)
	fill(t, e, l, "after", 20)
	logged := e.State().Height()
	waitFor(t, "the block without entries", func() bool { return e.NewestBlock() > logged })
	s := httptest.NewServer(ledger.Handler(LogDir(dir), e, slog.New(slog.DiscardHandler)))
	defer s.Close()
	c := quick(t, dir, dir, s.URL) // as `zos ledger restore --ledger` does
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	height := c.NewestBlock(t.Context())
	if height <= logged {
		t.Fatalf("the server tells of block %d; after %d there is one without entries", height, logged)
	}
	to := filepath.Join(t.TempDir(), "x")
	if _, err := Restore(t.Context(), bytes.NewReader(saved), to, height); err != nil {
		t.Fatal(err)
	}
	cfg := settings(to, Mesh{})
	pv := privval.LoadFilePV(cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile())
	for h, may := range map[int64]bool{height: false, height + 2: false, height + unsigned: false, height + unsigned + 1: true} {
		again := *pv // signing is remembered
		vote := cmtproto.Vote{Type: cmtproto.PrecommitType, Height: h, Round: 3, Timestamp: time.Now()}
		if err := again.SignVote("chain", &vote); (err == nil) != may {
			t.Errorf("height %d of a network at %d: %v", h, height, err)
		}
	}
}
