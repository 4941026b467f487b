// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// manyEntries is a log of more entries than a mirror writes at once.
func manyEntries(t *testing.T) *ledgertest.Log {
	t.Helper()
	l := ledgertest.New(t)
	for i := range 15 {
		var block [][]byte
		for j := range 100 {
			block = append(block, l.Register(fmt.Sprintf("d%d-%d", i, j), 1, nil))
		}
		l.Must(block...)
	}
	return l
}

// TestMirrorIsCutOff: a mirror writes while it reads, since a log may be larger than
// its memory. Cut off in the middle, it shows nothing, and goes on where it was.
func TestMirrorIsCutOff(t *testing.T) {
	l, dir := manyEntries(t), t.TempDir()
	var away atomic.Bool
	files := l.Handler()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if away.Load() && strings.HasPrefix(r.URL.Path, "/tile/entries/005") {
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		files.ServeHTTP(w, r)
	}))
	defer srv.Close()
	m, err := ledger.OpenMirror(t.Context(), dir, 100, ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{srv.URL}})
	if err != nil {
		t.Fatal(err)
	}
	away.Store(true)
	if err := m.Sync(t.Context()); !errors.Is(err, ledger.ErrUnreachable) {
		t.Errorf("cut off: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tile", "entries", "003")); err != nil {
		t.Errorf("nothing was written while it read: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoint")); err == nil || m.Health() == nil {
		t.Error("half a copy is shown, or counts as healthy")
	}
	away.Store(false)
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(covered(l.State().Size()), "checkpoint", "root/1.json") {
		want, err := os.ReadFile(filepath.Join(l.Dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(dir, path)); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s is another: %v", path, err)
		}
	}
}

// TestMirrorCannotWrite: a mirror whose disk takes nothing shows nothing of what it
// could not write, says so each time, and is a copy again when it is started again.
func TestMirrorCannotWrite(t *testing.T) {
	l, dir := manyEntries(t), t.TempDir()
	cfg := ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Serve()}}
	if err := os.WriteFile(filepath.Join(dir, "tile"), nil, 0o600); err != nil { // in a folder's place
		t.Fatal(err)
	}
	m, err := ledger.OpenMirror(t.Context(), dir, 100, cfg)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if err := m.Sync(t.Context()); err == nil || errors.Is(err, ledger.ErrForged) || errors.Is(err, ledger.ErrUnreachable) || !strings.Contains(err.Error(), "make room") {
			t.Errorf("a disk that takes nothing: %v", err)
		}
		if m.Health() == nil {
			t.Error("it says that it is healthy")
		}
		if err := os.Remove(filepath.Join(dir, "tile")); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(dir, "checkpoint")); err == nil {
		t.Error("it shows a checkpoint of what it has not")
	}
	if m, err = ledger.OpenMirror(t.Context(), dir, 100, cfg); err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c := l.Client("", dir)
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() {
		t.Errorf("the copy: %v", err)
	}
}
