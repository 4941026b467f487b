// SPDX-License-Identifier: Apache-2.0

package lastwords

import (
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zos-node/zos/init/lastwords"
)

// world is a queue that takes, and a store of the kernel's.
type world struct {
	t     *testing.T
	taker *Taker
	store string
	told  []string
	left  int // in the queue
	full  error
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, store: t.TempDir()}
	w.taker = &Taker{Dir: t.TempDir(), Log: slog.New(slog.DiscardHandler), Waiting: func() int { return w.left },
		Incident: func(kind, detail string) error {
			if w.full == nil {
				w.told, w.left = append(w.told, kind+" "+detail), w.left+1
			}
			return w.full
		}}
	return w
}

// crash leaves a report as init does.
func (w *world) crash(name, detail string) string {
	w.t.Helper()
	f := filepath.Join(w.store, name+detail)
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := lastwords.Leave(w.taker.Dir, name, lastwords.Report{Kind: "node-panic", Detail: detail, Files: []string{f}}); err != nil {
		w.t.Fatal(err)
	}
	return f
}

func (w *world) take() {
	w.t.Helper()
	if err := w.taker.Take(); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stored() []string {
	w.t.Helper()
	list, err := os.ReadDir(w.store)
	if err != nil {
		w.t.Fatal(err)
	}
	var names []string
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestKeptUntilOnTheLedger(t *testing.T) {
	w := newWorld(t)
	w.crash("a", "1")
	w.take()
	w.take()
	if !slices.Equal(w.told, []string{"node-panic 1"}) || len(w.stored()) != 1 {
		t.Fatalf("told %q, stored %q: want it told once and kept", w.told, w.stored())
	}
	w.left = 0 // it stands there
	w.take()
	if len(w.stored()) != 0 {
		t.Errorf("still stored: %q", w.stored())
	}
	if list, err := os.ReadDir(w.taker.Dir); err != nil || len(list) != 0 {
		t.Errorf("%v, %v", list, err)
	}
}

// A second death of the same kind before the first is on the ledger: both are
// told, and both are forgotten.
func TestAgainBeforeItStands(t *testing.T) {
	w := newWorld(t)
	w.crash("a", "1")
	w.take()
	w.crash("a", "2")
	w.take()
	w.left = 0
	w.take()
	if len(w.told) != 2 || len(w.stored()) != 0 {
		t.Errorf("told %q, stored %q", w.told, w.stored())
	}
}

func TestNothingIsLost(t *testing.T) {
	w := newWorld(t)
	w.crash("a", "1")
	w.full = errors.New("no room")
	if err := w.taker.Take(); !errors.Is(err, w.full) {
		t.Fatalf("%v", err)
	}
	w.full = nil
	w.take()
	if len(w.told) != 1 {
		t.Errorf("told %q", w.told)
	}
	w.taker.Dir = filepath.Join(t.TempDir(), "none")
	w.take()
}
