// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// FuzzStateFile: whatever stands in a client's state file, it is refused, or it
// is what a client of this ledger once had: then the client comes to the ledger's
// state, or says that the ledger is another one than it saw. What it keeps then is
// what every client keeps.
func FuzzStateFile(f *testing.F) {
	l := ledgertest.New(f)
	kept := func(l *ledgertest.Log) []byte {
		f.Helper()
		file := filepath.Join(f.TempDir(), "state")
		if err := l.Client(file, l.Dir).Sync(f.Context()); err != nil {
			f.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		return b
	}
	old := kept(l)
	next := l.Root
	next.Version = 2
	next.Lease.GraceMs++
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	later, fork := l.Fork(), l.Fork()
	later.Must(later.Register("later", 1, nil))
	l.Must(l.Register("a", 1, nil))
	fork.Must(fork.Register("evil", 1, nil))
	good := kept(l)
	later.Must(later.Register("later2", 1, nil))
	for _, b := range [][]byte{old, good, kept(later), kept(fork), kept(ledgertest.New(f)), {}, []byte("{}"), good[:len(good)-1], append(bytes.Clone(good), '\n'),
		bytes.Replace(good, []byte(`"checkpoint":"`), []byte(`"checkpoint":"AAAA`), 1), bytes.Replace(good, []byte(`"root"`), []byte(`"Root"`), 1)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		file := filepath.Join(t.TempDir(), "state")
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, StateFile: file})
		if err != nil {
			if bytes.Equal(b, good) || bytes.Equal(b, old) {
				t.Errorf("its own file is refused: %v", err)
			}
			return
		}
		err = c.Sync(t.Context())
		now, readErr := os.ReadFile(file)
		if readErr != nil {
			t.Fatal(readErr)
		}
		switch {
		case err == nil && (c.State().StateRoot() != l.State().StateRoot() || !bytes.Equal(now, good)):
			t.Errorf("it came to %d entries and kept %q", c.State().Size(), now)
		case err != nil && (c.State().Size() != 0 || !bytes.Equal(now, b)):
			t.Errorf("%v, and yet it came to %d entries and kept %q", err, c.State().Size(), now)
		case err != nil && !errors.Is(err, ledger.ErrRollback) && !errors.Is(err, ledger.ErrFork) && !errors.Is(err, ledger.ErrForged):
			t.Errorf("the ledger is in order and another one was seen: %v", err)
		}
	})
}
