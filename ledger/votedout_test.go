// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
)

// TestVotedOut: a root names other validators, and those before it go on with
// the log, signed by themselves alone. A reader who has only the first root
// opens their checkpoint under that one when the next is hidden: the log itself
// says that it is not theirs to sign any more.
func TestVotedOut(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 1024)
	next := l.Root
	next.Version = 2
	log, elected := ledgertest.Signers(t, next.Log.Origin)
	next.Log = log
	rotation := l.Sign(ledger.TypeRoot, next, "root")
	before := l.Serve()
	honest, theirs := l.Fork(), l.Fork()
	honest.SignBy(elected)
	for _, f := range []*ledgertest.Log{honest, theirs} {
		f.Must(rotation)
		f.Must(f.Register("shop", 1, nil))
		f.Must(n.Entry(ledger.TypeCapacity, n.Capacity(2048)))
		f.Snapshot(nil)
	}
	hidden := liar(t, theirs, func(path string, b []byte) (int, []byte) {
		if path == "/root/2.json" {
			return 404, nil
		}
		return 0, b
	})
	// The log of those elected, without the root that names them, is right all
	// the same for whoever sees both kinds of signatures on it.
	both := liar(t, honest, func(path string, b []byte) (int, []byte) {
		switch path {
		case "/root/2.json":
			return 404, nil
		case "/checkpoint":
			s := honest.State()
			old := theirs.Checkpoint(tlog.Tree{N: s.Size(), Hash: hash(t, s.RootHash())})
			return 0, append(b, strings.Join(tiles.Lines(old), "\n")+"\n"...)
		}
		return 0, b
	})
	const says = "under root version 2, which is on the log"
	ways := []struct {
		name     string
		snapshot bool
		followed bool // it stood at the last tree that they could sign
	}{{"from entry 0", false, false}, {"from a snapshot", true, false}, {"who followed", false, true}, {"who followed from a snapshot", true, true}}
	for _, way := range ways {
		t.Run(way.name, func(t *testing.T) {
			open := func(ledgers ...string) (*ledger.Client, *int64) {
				t.Helper()
				file := filepath.Join(t.TempDir(), "state")
				if way.followed {
					if err := l.Client(file, before).Sync(t.Context()); err != nil {
						t.Fatal(err)
					}
				}
				folded := new(int64)
				c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: ledgers, StateFile: file, Snapshot: way.snapshot,
					Progress: func(string, int64, int64) { *folded++ }})
				if err != nil {
					t.Fatal(err)
				}
				return c, folded
			}
			for name, url := range map[string]string{"hidden": hidden, "shown": theirs.Serve()} {
				c, folded := open(url)
				for range 2 {
					if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), says) || c.State().Size() != 0 || c.Checkpoint().N != 0 {
						t.Errorf("the next root is %s: %v at %d entries, want ErrForged with %q at none", name, err, c.State().Size(), says)
					}
				}
				if leapt := *folded == 0; leapt != way.snapshot {
					t.Errorf("the next root is %s: %d entries were folded", name, *folded)
				}
				c, _ = open(url, honest.Serve())
				if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != honest.State().StateRoot() || c.Ledgers()[0].State != "forged" {
					t.Errorf("the next root is %s, an honest one beside: %v, %+v", name, err, c.Ledgers())
				}
			}
			for name, url := range map[string]string{"elected": honest.Serve(), "both": both} {
				c, _ := open(url)
				if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 2 {
					t.Errorf("signed by %s: %v", name, err)
				}
			}
		})
	}
	m, err := ledger.OpenMirror(t.Context(), t.TempDir(), 1, ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{hidden}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), says) {
		t.Errorf("a mirror says %v", err)
	}
	// Their folder, without that root, taken for a copy of one's own or replayed.
	if err := os.Remove(filepath.Join(theirs.Dir, "root", "2.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenMirror(t.Context(), theirs.Dir, 1, ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{hidden}}); !errors.Is(err, ledger.ErrCopy) {
		t.Errorf("as a mirror's own copy: %v", err)
	}
	for _, whole := range []bool{true, false} {
		if _, err := ledger.Replay(t.Context(), theirs.Dir, l.RootEnv, whole, nil, func([]byte) {}); !errors.Is(err, ledger.ErrForged) {
			t.Errorf("replayed (whole %t): %v", whole, err)
		}
	}
}
