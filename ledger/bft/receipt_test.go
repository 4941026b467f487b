// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// An entry that is submitted again, at once or much later and after a
// restart, gets the receipt that it got: of its own block, not of now.
func TestSameEntrySameReceipt(t *testing.T) {
	l, dir := fresh(t, lease)
	var c clock
	e := open(t, dir, Options{now: c.now})
	entry := l.Register("shop", 1, nil)
	first, err := e.Submit(t.Context(), entry)
	if err != nil {
		t.Fatal(err)
	}
	c.ahead.Store(int64(time.Hour))
	for i := range 3 {
		later, err := e.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil))
		if err != nil {
			t.Fatal(err)
		}
		if later.TimeMs < first.TimeMs+time.Hour.Milliseconds()/2 {
			t.Fatalf("the ledger's time did not move: %+v after %+v", later, first)
		}
	}
	if again, err := e.Submit(t.Context(), entry); err != nil || again != first {
		t.Errorf("submitted again: %+v, %v, want %+v", again, err, first)
	}
	root, err := e.Submit(t.Context(), e.State().RootEnvelope(1))
	if err != nil || root.Index != 0 || root.Size != 2 {
		t.Errorf("the first entry of all: %+v, %v", root, err)
	}
	// Where it slips past the first look, the block itself finds it.
	e.node.Mempool().Flush() // and with it what CometBFT remembers of it
	w := e.app.wait(sha256.Sum256(entry))
	if err := e.push(entry); err != nil {
		t.Fatal(err)
	}
	select {
	case r := <-w:
		if !r.before || r.receipt.Index != first.Index || r.err != nil {
			t.Errorf("a block with what was said before: %+v", r)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("waited 2 min for a block")
	}
}

// TestReceiptOfDamagedLog: no receipt is made up.
func TestReceiptOfDamagedLog(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	r, err := e.Submit(t.Context(), l.Register("shop", 1, nil))
	if err != nil {
		t.Fatal(err)
	}
	log := LogDir(dir)
	if got, err := receipt(log, r.Index, r.Size); err != nil || got != r {
		t.Fatalf("got %+v, %v, want %+v", got, err, r)
	}
	if got, err := receipt(log, r.Index, r.Size-1); err == nil {
		t.Errorf("an entry whose block has not ended has receipt %+v", got)
	}
	if got, err := receipt(tiles.Dir(t.TempDir()), r.Index, r.Size); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a log without files: %+v, %v", got, err)
	}
}
