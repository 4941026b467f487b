// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// zeros are as many as are wanted.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) {
	clear(b)
	return len(b), nil
}

// TestSnapshotIsNoBomb: what cannot be the snapshot of a log is found out while it
// comes, whatever is right about its beginning, and is never in memory as a whole.
func TestSnapshotIsNoBomb(t *testing.T) {
	l, _ := eventful(t)
	s := l.State()
	right := s.Snapshot()
	const most, gib = 4 << 20, 1 << 30
	head := len("zos-snapshot-v1\n") + 4*8 + 32*len(s.Tree().Edges())
	num := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	// The list of nodes, of which the first is as long as the rest.
	nodes := bytes.Index(right, []byte(`{"id":`)) - 16 - 8
	other := ledgertest.New(t)
	other.Must(other.Register("x", 1, nil))
	for name, begin := range map[string][]byte{
		"zeros":                 nil,
		"its first line":        []byte("zos-snapshot-v1\n"),
		"its tree":              right[:head],
		"a tree of another log": other.State().Snapshot()[:head],
		"a tree without end":    append(bytes.Clone(right[:head-32*len(s.Tree().Edges())-8]), num(gib/32)...),
		"roots without end":     append(bytes.Clone(right[:head]), num(gib/16)...),
		"a root without end":    append(bytes.Clone(right[:head+16]), num(gib-1024)...),
		"nodes without end":     append(bytes.Clone(right[:nodes]), num(gib/16)...),
		"a node without end":    append(bytes.Clone(right[:nodes+16]), num(gib-4096)...),
		"all of it, and more":   right,
	} {
		t.Run(name, func(t *testing.T) {
			log := l.Handler()
			var sent atomic.Int64
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path != "/snapshot" {
					log.ServeHTTP(w, r)
					return
				}
				n, _ := io.Copy(w, io.MultiReader(bytes.NewReader(begin), io.LimitReader(zeros{}, gib-int64(len(begin)))))
				sent.Store(n)
			}))
			c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{srv.URL}, Snapshot: true})
			if err != nil {
				t.Fatal(err)
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), "snapshot") {
				t.Errorf("it says %v", err)
			}
			runtime.ReadMemStats(&after)
			if n := after.TotalAlloc - before.TotalAlloc; n > 3*most {
				t.Errorf("%d bytes of memory were taken for it, the log allows a snapshot of a few MiB", n)
			}
			srv.Close() // waits for the server to end
			if n := sent.Load(); n > 4*most {
				t.Errorf("%d bytes were read of it", n)
			}
		})
	}
}
