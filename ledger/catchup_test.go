// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger/tiles"
)

// TestEachAhead reads a log of several bundles: in order, each entry after it
// was opened, and never further than where the log is right.
func TestEachAhead(t *testing.T) {
	dir := tiles.Dir(t.TempDir())
	w := tiles.NewWriter(dir)
	const n = 5*tiles.Width + 7
	var all [][]byte
	for i := range n {
		all = append(all, fmt.Appendf(nil, "entry %d", i))
	}
	if err := w.Append(all); err != nil {
		t.Fatal(err)
	}
	from, tree := dirSource{dir}, w.Head()
	read := func(ctx context.Context, first, end int64, see func(i int64) error) (next int64, err error) {
		opened := map[string]bool{}
		next = first
		hashes := newProven(ctx, from, tree)
		err = eachAhead(ctx, from, tree, hashes, first, end, func(some [][]byte) {
			for _, raw := range some {
				opened[string(raw)] = true
			}
		}, func(i int64, raw []byte) error {
			if i != next || string(raw) != string(all[i]) {
				t.Errorf("entry %d is %q, want entry %d", i, raw, next)
			}
			next++
			return see(i)
		})
		for i := first; i < next; i++ { // the goroutines have ended
			if !opened[string(all[i])] {
				t.Errorf("entry %d was not opened", i)
			}
		}
		return next, err
	}
	fine := func(int64) error { return nil }
	for _, part := range [][2]int64{{0, n}, {3, n}, {tiles.Width, 2 * tiles.Width}, {300, 301}, {n, n}} {
		if next, err := read(t.Context(), part[0], part[1], fine); err != nil || next != part[1] {
			t.Errorf("%v: up to %d, %v", part, next, err)
		}
	}
	stop := errors.New("enough")
	if next, err := read(t.Context(), 0, n, func(i int64) error {
		if i == 400 {
			return stop
		}
		return nil
	}); !errors.Is(err, stop) || next != 401 {
		t.Errorf("up to %d, %v", next, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	next, err := read(ctx, 0, n, func(i int64) error {
		if i == 10 {
			cancel()
		}
		return nil
	})
	if next < n && (!errors.Is(err, ErrUnreachable) || !errors.Is(err, context.Canceled)) || next == n && err != nil {
		t.Errorf("cancelled: up to %d, %v", next, err)
	}
	path := filepath.Join(string(dir), tiles.BundlePath(3, tiles.Width))
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)-1] ^= 1
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if next, err := read(t.Context(), 0, n, fine); !errors.Is(err, ErrForged) || next != 3*tiles.Width {
		t.Errorf("altered: up to %d, %v", next, err)
	}
}
