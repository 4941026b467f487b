// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"strings"
	"sync"

	"github.com/zos-node/zos/ledger/tiles"
)

// hot keeps files that a server is asked for again and again and that never
// change: whole tiles of hashes. Nothing else: a narrow tile is replaced by a
// wider one, and a bundle may be pruned. It has two generations; what nobody asks
// for while the newer one fills is forgotten.
type hot struct {
	mu       sync.Mutex
	now, old map[string][]byte
}

// hotTiles is how many tiles, of 8 KiB each, a generation holds: all that a log
// of a million entries has.
const hotTiles = 4096

// read is dir.Read.
func (h *hot) read(dir tiles.Dir, path string) ([]byte, error) {
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

func (h *hot) keep(path string, b []byte) {
	if h.now == nil || len(h.now) >= hotTiles {
		h.now, h.old = map[string][]byte{}, h.now
	}
	h.now[path] = b
}
