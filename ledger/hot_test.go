// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger/tiles"
)

// What never changes is read once; everything else each time it is asked for.
func TestHot(t *testing.T) {
	dir := t.TempDir()
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var h hot
	for path, kept := range map[string]bool{"tile/0/000": true, "tile/1/x001/000": true, "tile/0/001.p/7": false, "tile/entries/000": false, "checkpoint": false, "root/1.json": false} {
		for i, want := range []string{"first", "second"} {
			write(path, want)
			if kept {
				want = "first"
			}
			if got, err := h.read(tiles.Dir(dir), path); err != nil || string(got) != want {
				t.Errorf("%s, read %d: %q, %v, want %q", path, i, got, err, want)
			}
		}
	}
	for _, path := range []string{"tile/0/002", "tile/../secret", "tile/0/0000"} {
		for range 2 {
			if b, err := h.read(tiles.Dir(dir), path); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s: %q, %v", path, b, err)
			}
		}
	}
	for i := range 3 * hotTiles {
		h.keep(fmt.Sprint(i), []byte{1})
	}
	if n := len(h.now) + len(h.old); n > 2*hotTiles {
		t.Errorf("%d tiles are kept", n)
	}
}
