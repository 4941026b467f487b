// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// hot keeps files that a server is asked for again and again: whole tiles of
// hashes, which never change, and the checkpoint as long as it is the same file.
// Nothing else: a narrow tile is replaced by a wider one, and a bundle may be
// pruned. Of tiles it has two generations; what nobody asks for while the newer
// one fills is forgotten.
type hot struct {
	mu         sync.Mutex
	now, old   map[string][]byte
	checkpoint []byte
	of         fs.FileInfo // the file that the checkpoint was read from; nil: it is not kept
}

const (
	// hotTiles is how many tiles, of 8 KiB each, a generation holds: all that a log
	// of a million entries has.
	hotTiles = 4096
	// settled is how old a file is that cannot be taken for the next one of its
	// name: that may get its inode, and within the file system's clock tick its time.
	settled = time.Second
)

// read is dir.Read.
func (h *hot) read(dir tiles.Dir, path string) ([]byte, error) {
	if path == checkpointPath {
		return h.current(dir)
	}
	if !strings.HasPrefix(path, "tile/") || strings.HasPrefix(path, "tile/entries/") || strings.Contains(path, ".p/") {
		return dir.Read(path)
	}
	h.mu.Lock()
	b := h.now[path]
	if b == nil {
		if b = h.old[path]; b != nil {
			h.keep(path, b)
		}
	}
	h.mu.Unlock()
	if b != nil {
		return b, nil
	}
	b, err := dir.Read(path)
	if err == nil {
		h.mu.Lock()
		h.keep(path, b)
		h.mu.Unlock()
	}
	return b, err
}

// current is the checkpoint, which is replaced by renaming and never written
// again: while the same file is there nobody has to read it.
func (h *hot) current(dir tiles.Dir) ([]byte, error) {
	info, err := os.Stat(filepath.Join(string(dir), checkpointPath))
	if err != nil {
		return dir.Read(checkpointPath)
	}
	h.mu.Lock()
	b, of := h.checkpoint, h.of
	h.mu.Unlock()
	if of != nil && os.SameFile(of, info) && of.ModTime().Equal(info.ModTime()) && of.Size() == info.Size() {
		return b, nil
	}
	if b, err = dir.Read(checkpointPath); err != nil {
		return nil, err
	}
	if time.Since(info.ModTime()) > settled {
		h.mu.Lock()
		h.checkpoint, h.of = b, info
		h.mu.Unlock()
	}
	return b, nil
}

func (h *hot) keep(path string, b []byte) {
	if h.now == nil || len(h.now) >= hotTiles {
		h.now, h.old = map[string][]byte{}, h.now
	}
	h.now[path] = b
}
