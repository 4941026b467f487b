// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
)

func mirrors(t *testing.T, l *ledgertest.Log, file string, stale time.Duration, urls ...string) (*ledger.Client, *[]error) {
	t.Helper()
	var refused []error
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: urls, StateFile: file, StaleAfter: stale,
		OnRefused: func(_ string, err error) { refused = append(refused, err) }})
	if err != nil {
		t.Fatal(err)
	}
	return c, &refused
}

func states(c *ledger.Client) (all []string) {
	for _, s := range c.Ledgers() {
		all = append(all, s.State)
	}
	return all
}

// One client, many mirrors, each with a fault of its own: it follows the
// newest that holds, and says which did what.
func TestWhichMirrorDidWhat(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("a", 1, nil))
	file := filepath.Join(t.TempDir(), "state")
	first, _ := mirrors(t, l, file, 0, l.Serve())
	if err := first.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	frozen := l.Fork() // stays where it is
	fork := l.Fork()
	fork.Must(fork.Register("evil", 1, nil))
	l.Must(l.Register("b", 1, nil))
	l.Must(l.Register("c", 1, nil))
	slow := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	defer slow.Close()
	altered := liar(t, l, only("/checkpoint", flip(30)))
	urls := []string{altered, slow.URL, frozen.Serve(), l.Serve(), fork.Serve(), "http://127.0.0.1:1"}
	c, refused := mirrors(t, l, file, time.Hour, urls...)
	// The fork continues what was seen, and is signed by the operator's own
	// keys: nobody can tell which of the two is right.
	if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrFork) || !strings.Contains(err.Error(), "contradict each other") || c.State().Size() != 0 {
		t.Fatalf("two logs with all signatures: %v", err)
	}
	// Whoever saw the right one first knows.
	if err := first.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	c, refused = mirrors(t, l, file, time.Hour, urls...)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := states(c), []string{"forged", "unreachable", "behind", "ok", "behind", "unreachable"}; !slices.Equal(got, want) {
		t.Errorf("after a restart: %v, want %v", got, want)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got, want := states(c), []string{"forged", "unreachable", "behind", "ok", "forked", "unreachable"}; !slices.Equal(got, want) {
		t.Errorf("states are %v, want %v", got, want)
	}
	if !slices.ContainsFunc(*refused, func(err error) bool { return errors.Is(err, ledger.ErrFork) }) {
		t.Errorf("refused: %v", *refused)
	}
	// Behind for long is no longer an accident.
	c, _ = mirrors(t, l, file, 0, frozen.Serve(), l.Serve())
	for range 2 {
		if err := c.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if got, want := states(c), []string{"rolled back", "ok"}; !slices.Equal(got, want) {
		t.Errorf("frozen: %v, want %v", got, want)
	}
}

// A mirror that has too few signatures is refused; two that have enough
// together are not.
func TestSignaturesOfSeveralMirrors(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("a", 1, nil))
	half := func(drop int) string {
		return liar(t, l, only("/checkpoint", func(b []byte) []byte {
			lines := bytes.SplitAfter(b, []byte("\n"))
			return bytes.Join(slices.Delete(lines, 4+drop, 5+drop), nil)
		}))
	}
	a, b := half(0), half(1)
	for _, one := range []string{a, b} {
		if c, _ := mirrors(t, l, "", 0, one); !errors.Is(c.Sync(t.Context()), ledger.ErrForged) {
			t.Error("half the signatures were enough")
		}
	}
	c, refused := mirrors(t, l, "", 0, a, b)
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() || len(*refused) != 2 {
		t.Errorf("together: %v, refused %v", err, *refused)
	}
}

// covered are the paths of all tiles and bundles of a log of so many entries.
func covered(size int64) (all []string) {
	for level := 0; level == 0 || size > 0; level++ {
		full, part := size/tiles.Width, int(size%tiles.Width)
		for n := range full {
			all = append(all, tiles.Path(tlog.Tile{H: tiles.Height, L: level, N: n, W: tiles.Width}))
			if level == 0 {
				all = append(all, tiles.BundlePath(n, tiles.Width))
			}
		}
		if part > 0 {
			all = append(all, tiles.Path(tlog.Tile{H: tiles.Height, L: level, N: full, W: part}))
			if level == 0 {
				all = append(all, tiles.BundlePath(full, part))
			}
		}
		size = full
	}
	return all
}

// A mirror's files are those of the ledger, byte for byte, also after it was
// away, through a rotation, and beside a ledger that lies.
func TestMirrorIsTheSame(t *testing.T) {
	l, _ := eventful(t)
	dir := t.TempDir()
	cfg := ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{liar(t, l, only("/tile/entries", flip(-20))), l.Serve()}}
	same := func(m *ledger.Mirror) {
		t.Helper()
		if err := m.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		c := l.Client("", dir)
		if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() {
			t.Fatalf("the copy: %v", err)
		}
		for _, path := range append(covered(l.State().Size()), "checkpoint", "root/1.json", "root/2.json") {
			a, err := os.ReadFile(filepath.Join(l.Dir, path))
			if err != nil {
				t.Fatal(err)
			}
			if b, err := os.ReadFile(filepath.Join(dir, path)); err != nil || !bytes.Equal(a, b) {
				t.Errorf("%s is another: %v", path, err)
			}
		}
	}
	m, err := ledger.OpenMirror(t.Context(), dir, 5, cfg)
	if err != nil {
		t.Fatal(err)
	}
	if m.Health() == nil {
		t.Error("healthy without a copy")
	}
	same(m)
	if m.Health() != nil {
		t.Error(m.Health())
	}
	for i := range 300 {
		l.Must(l.Register(fmt.Sprintf("d%d", i), 1, nil))
	}
	if n := len(covered(l.State().Size())); n != 7 {
		t.Fatalf("a log of %d entries has %d tiles and bundles, want 2 full and one partial of each, and a level above", l.State().Size(), n)
	}
	if m, err = ledger.OpenMirror(t.Context(), dir, 5, cfg); err != nil {
		t.Fatal(err)
	}
	same(m)
	if _, err := os.Stat(filepath.Join(dir, "snapshot")); err != nil {
		t.Error(err)
	}
	whole := l.Client("", l.Dir)
	if err := whole.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	// Damaged on its own disk, it says so and serves nobody.
	path := filepath.Join(dir, "tile", "entries", "000")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, flip(500)(b), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ledger.OpenMirror(t.Context(), dir, 5, cfg); !errors.Is(err, ledger.ErrForged) || !errors.Is(err, ledger.ErrCopy) {
		t.Errorf("a damaged copy: %v", err)
	}
}

// TestMirrorPublishesWhatIsSigned: where what a mirror wrote is another tree than
// the one that its checkpoint is of, readers never see either, however often it
// tries; begun anew, it is a copy again.
func TestMirrorPublishesWhatIsSigned(t *testing.T) {
	l, _ := eventful(t)
	dir := t.TempDir()
	cfg := ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Serve()}}
	open := func() *ledger.Mirror {
		t.Helper()
		m, err := ledger.OpenMirror(t.Context(), dir, 1, cfg)
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	read := func(name string) []byte {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	m := open()
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	checkpoint, snapshot := read("checkpoint"), read("snapshot")
	m.Skew([]byte("what nobody ordered"))
	for i := range 3 {
		l.Must(l.Register(fmt.Sprintf("d%d", i), 1, nil))
		if err := m.Sync(t.Context()); err == nil || !strings.Contains(err.Error(), "its files have root") {
			t.Errorf("its files are of another tree: %v", err)
		}
		if !bytes.Equal(read("checkpoint"), checkpoint) || !bytes.Equal(read("snapshot"), snapshot) {
			t.Fatal("it published a checkpoint of what it has not, or a snapshot")
		}
	}
	if err := open().Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, path := range append(covered(l.State().Size()), "checkpoint") {
		want, err := os.ReadFile(filepath.Join(l.Dir, path))
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(read(path), want) {
			t.Errorf("begun anew, %s is another", path)
		}
	}
}

// TestMirrorSnapshots: a mirror makes a snapshot once so many entries have come
// since the last one, and not before; after a start it counts from there.
func TestMirrorSnapshots(t *testing.T) {
	l := ledgertest.New(t) // of 2 entries; each block below has 2
	dir := t.TempDir()
	cfg := ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}}
	m, err := ledger.OpenMirror(t.Context(), dir, 10, cfg)
	if err != nil {
		t.Fatal(err)
	}
	var made []int64
	for i := range 20 {
		if i == 14 {
			if m, err = ledger.OpenMirror(t.Context(), dir, 10, cfg); err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // also where nothing is new
			if err := m.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		b, err := os.ReadFile(filepath.Join(dir, "snapshot"))
		if err == nil {
			s, err := ledger.OpenSnapshot(b)
			if err != nil {
				t.Fatal(err)
			}
			if len(made) == 0 || made[len(made)-1] != s.Size() {
				made = append(made, s.Size())
			}
		} else if !errors.Is(err, fs.ErrNotExist) {
			t.Fatal(err)
		}
		l.Must(l.Register(fmt.Sprintf("d%d", i), 1, nil))
	}
	if want := []int64{10, 20, 38}; !slices.Equal(made, want) {
		t.Errorf("snapshots of %v entries, want %v", made, want)
	}
}
