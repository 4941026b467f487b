// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestCheckFiles: also a file that no proof needs any more has to be what the
// entries give.
func TestCheckFiles(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	check := func(where string) (int, []error) {
		c := l.Client("", where)
		if err := c.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		n, wrong, err := c.Entries().CheckFiles(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return n, wrong
	}
	files, wrong := check(l.Dir)
	if files < 5 || len(wrong) != 0 {
		t.Fatalf("%d files, %v", files, wrong)
	}
	for _, name := range []string{"tile/0/000.p/2", "tile/entries/000.p/2", "root/1.json"} {
		path := filepath.Join(l.Dir, filepath.FromSlash(name))
		good, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range [][]byte{flip(3)(good), good[:len(good)-1], append(append([]byte{}, good...), 0), {}} {
			if err := os.WriteFile(path, bad, 0o644); err != nil {
				t.Fatal(err)
			}
			if _, wrong := check(l.Dir); len(wrong) != 1 || !errors.Is(wrong[0], ledger.ErrForged) || !strings.Contains(wrong[0].Error(), name) {
				t.Errorf("%s with %d bytes: %v", name, len(bad), wrong)
			}
		}
		if err := os.WriteFile(path, good, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	// What a crash left beyond the checkpoint is nobody's business yet.
	if err := os.WriteFile(filepath.Join(l.Dir, "tile/0/000.p/9"), []byte("later"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, wrong := check(l.Dir); len(wrong) != 0 {
		t.Errorf("beyond the checkpoint: %v", wrong)
	}
	url := liar(t, l, func(path string, b []byte) (int, []byte) {
		if path == "/root/1.json" {
			return 0, flip(3)(b)
		}
		return 0, b
	})
	if _, wrong := check(url); len(wrong) != 1 || !strings.Contains(wrong[0].Error(), "root/1.json") {
		t.Errorf("a server with another root of trust: %v", wrong)
	}
}

// TestFoldRefusesIdleBlock: a block in which nothing happened has no leaf.
func TestFoldRefusesIdleBlock(t *testing.T) {
	l := ledgertest.New(t)
	fold := ledger.NewFold(ledger.NewState())
	for _, leaf := range l.Leaves {
		if err := fold.Add(leaf); err != nil {
			t.Fatal(err)
		}
	}
	idle := l.Sign(ledger.TypeBlock, ledger.Block{Height: 9, TimeMs: ledgertest.Epoch, StateRoot: l.State().StateRoot()})
	if err := fold.Add(idle); err == nil || !strings.Contains(err.Error(), "nothing happened") {
		t.Errorf("a leaf for nothing: %v", err)
	}
}

// TestRefusalIsTheLastWord: who was refused by one ledger, and by the verified
// state, does not ask the next one.
func TestRefusalIsTheLastWord(t *testing.T) {
	l := ledgertest.New(t)
	var asked atomic.Int64
	second := liar(t, l, func(path string, b []byte) (int, []byte) {
		if path == "/submit" {
			asked.Add(1)
		}
		return 0, b
	})
	c := l.Client("", l.Serve(), second)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := c.Submit(t.Context(), l.Register("shop", 3, nil))
	var refused *ledger.Refused
	if !errors.As(err, &refused) || asked.Load() != 0 {
		t.Errorf("%v; the next ledger was asked %d times", err, asked.Load())
	}
}

// TestFoldRefusesAnotherState: a block's leaf is what replaying the block
// gives, byte for byte.
func TestFoldRefusesAnotherState(t *testing.T) {
	l := ledgertest.New(t)
	fold := ledger.NewFold(ledger.NewState())
	if err := fold.Add(l.RootEnv); err != nil {
		t.Fatal(err)
	}
	lie := l.Sign(ledger.TypeBlock, ledger.Block{Height: 0, TimeMs: ledgertest.Epoch, StateRoot: strings.Repeat("ab", 32)})
	if err := fold.Add(lie); err == nil || !strings.Contains(err.Error(), "replaying the block gives state root") {
		t.Errorf("a leaf with another state root: %v", err)
	}
}
