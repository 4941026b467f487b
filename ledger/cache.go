// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"runtime"
	"sync"

	"github.com/zos-node/zos/sign"
)

// Cache remembers entries whose decoding and signatures were checked, by the
// SHA-256 of their bytes: a server looks at each entry when it is submitted,
// when it is proposed, and when its block is applied. What was found wrong is
// not remembered. The result is the same with and without.
type Cache struct {
	mu       sync.Mutex
	now, old map[sum]opened
	keys     *sign.KeyCache
}

type opened struct {
	entry *Entry
	keys  []string
}

// cacheSize is how many entries each of the two generations holds.
const cacheSize = 2048

// NewCache makes an empty cache. A nil Cache remembers nothing.
func NewCache() *Cache { return &Cache{now: map[sum]opened{}, keys: sign.NewKeyCache()} }

// Open is Decode, and the keys whose signatures are valid.
func (c *Cache) Open(raw []byte) (*Entry, []string, error) {
	var id sum
	var known *sign.KeyCache
	if c != nil {
		id, known = sha256.Sum256(raw), c.keys
		c.mu.Lock()
		o, ok := c.now[id]
		if !ok {
			if o, ok = c.old[id]; ok {
				c.keep(id, o)
			}
		}
		c.mu.Unlock()
		if ok {
			return o.entry, o.keys, nil
		}
	}
	e, err := decode(raw, known)
	if err != nil {
		return nil, nil, err
	}
	keys, err := e.opened.Keys()
	if err != nil {
		return e, nil, refusal("", err)
	}
	if c != nil {
		c.mu.Lock()
		c.keep(id, opened{e, keys})
		c.mu.Unlock()
	}
	return e, keys, nil
}

func (c *Cache) keep(id sum, o opened) {
	if len(c.now) >= cacheSize {
		c.now, c.old = map[sum]opened{}, c.now
	}
	c.now[id] = o
}

// ahead opens entries on all processors, so that they are remembered.
func (c *Cache) ahead(entries [][]byte) {
	if c == nil || len(entries) < 2 || runtime.GOMAXPROCS(0) < 2 {
		return
	}
	// What is wrong with one is said when it is applied.
	sideBySide(len(entries), func(i int) { _, _, _ = c.Open(entries[i]) })
}

// sideBySide does something for each of n, on all processors.
func sideBySide(n int, do func(i int)) {
	workers := min(runtime.GOMAXPROCS(0), n)
	var all sync.WaitGroup
	for w := range workers {
		all.Go(func() {
			for i := w; i < n; i += workers {
				do(i)
			}
		})
	}
	all.Wait()
}

// UseCache lets Check and Apply use what a cache remembers, and Clones of the
// state too.
func (s *State) UseCache(c *Cache) { s.cache = c }
