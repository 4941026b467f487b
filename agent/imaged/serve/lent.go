// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sort"
	"sync"
	"time"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/lazy"
)

// lentTimeout is how long the agent may take over a chunk, or over its end: it
// reads memory. After that, all comes from mirrors.
const lentTimeout = 10 * time.Second

// lent is what the agent gives of other images that the node has. It is asked
// before mirrors are; when it is gone, as when the agent was restarted, they send
// what it had.
type lent struct {
	chunks []zimage.Chunk

	mu   sync.Mutex
	conn net.Conn // nil: there is nothing, or no more
	has  []bool   // chunks that it may have, and was not asked for
}

// newLent takes up the socket of a process that has one.
func newLent(cfg Config) (*lent, error) {
	l := &lent{chunks: cfg.Manifest.Chunks, has: make([]bool, len(cfg.Manifest.Chunks))}
	if len(cfg.Lent) == 0 {
		return l, nil
	}
	if len(cfg.Lent) != len(zimage.PackHave(l.has)) {
		return nil, fmt.Errorf("configuration: %d bytes of bits for %d chunks", len(cfg.Lent), len(l.has))
	}
	for i := range l.has {
		l.has[i] = cfg.Lent[i/8]&(1<<(i%8)) != 0
	}
	f := os.NewFile(LentFD, "lent")
	conn, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil { // it has its own
		return nil, fmt.Errorf("chunks of other images: %w", err)
	}
	l.conn = conn
	return l, nil
}

// most says whether the agent may give at least half of the bytes that are
// missing.
func (l *lent) most(have []bool) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var missing, here int64
	for i, c := range l.chunks {
		if have[i] {
			continue
		}
		missing += c.Size
		if l.has[i] {
			here += c.Size
		}
	}
	return l.conn != nil && 2*here >= missing
}

// first asks for a chunk here and then elsewhere. Whoever gets it holds it
// against its hash, as what a mirror sends.
func (l *lent) first(get lazy.Get) lazy.Get {
	return func(ctx context.Context, c zimage.Chunk) ([]byte, error) {
		if b := l.chunk(c); b != nil {
			return b, nil
		}
		return get(ctx, c)
	}
}

// chunk is nil when the agent does not have it.
func (l *lent) chunk(c zimage.Chunk) []byte {
	i := sort.Search(len(l.chunks), func(i int) bool { return l.chunks[i].Off >= c.Off })
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn == nil || i == len(l.chunks) || !l.has[i] {
		return nil
	}
	l.has[i] = false
	b, err := l.ask(uint32(i), c.Size)
	if err != nil {
		l.end()
		fmt.Fprintln(os.Stderr, "imaged: what other images have comes from mirrors:", err)
		return nil
	}
	return b
}

func (l *lent) ask(i uint32, size int64) ([]byte, error) {
	if err := l.conn.SetDeadline(time.Now().Add(lentTimeout)); err != nil {
		return nil, err
	}
	if _, err := l.conn.Write(binary.LittleEndian.AppendUint32(nil, i)); err != nil {
		return nil, err
	}
	var answer [1]byte
	if _, err := io.ReadFull(l.conn, answer[:]); err != nil || answer[0] != Given {
		return nil, err
	}
	b := make([]byte, size)
	_, err := io.ReadFull(l.conn, b)
	return b, err
}

// end tells the agent that no more is wanted. l.mu is held.
func (l *lent) end() {
	if l.conn != nil {
		_ = l.conn.Close() // it was read only: nothing can be lost
		l.conn = nil
	}
}

// whole ends it when everything is there.
func (l *lent) whole() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end()
}
