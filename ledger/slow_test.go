// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
)

// link is how a ledger sends one of its files: so many bytes at a time, and a pause
// after each time; at most so many bytes, after which nothing comes.
type link struct {
	path  string
	bytes int
	pause time.Duration
	most  int // 0: all
}

func (k link) serve(t *testing.T, l *ledgertest.Log) (url string, asked *atomic.Int64) {
	t.Helper()
	asked = new(atomic.Int64)
	log, over := l.Handler(), make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != k.path {
			log.ServeHTTP(w, r)
			return
		}
		asked.Add(1)
		rec := httptest.NewRecorder()
		log.ServeHTTP(rec, r)
		b := rec.Body.Bytes()
		w.Header().Set("Content-Length", fmt.Sprint(len(b)))
		w.WriteHeader(rec.Code)
		for sent := 0; sent < len(b); sent += k.bytes {
			if k.most > 0 && sent >= k.most {
				break
			}
			_, err := w.Write(b[sent:min(sent+k.bytes, len(b))])
			if err == nil {
				err = http.NewResponseController(w).Flush()
			}
			if err != nil {
				return
			}
			select {
			case <-time.After(k.pause):
			case <-over:
				return
			}
		}
		if k.most == 0 {
			return
		}
		select {
		case <-r.Context().Done():
		case <-over:
		}
	}))
	t.Cleanup(s.Close)
	t.Cleanup(func() { close(over) })
	return s.URL, asked
}

// long is a log with a snapshot of a few thousand bytes.
func long(t *testing.T) *ledgertest.Log {
	t.Helper()
	l := ledgertest.New(t)
	var block [][]byte
	for i := range 8 {
		block = append(block, l.Register(fmt.Sprintf("d%d", i), 1, nil))
	}
	l.Must(block...)
	l.Snapshot(nil)
	l.Must(l.Register("later", 1, nil))
	return l
}

// TestSlowLinks: what counts is that something comes, and enough of it, not how long
// the whole takes. Who gives no snapshot, or a drop of it now and then, holds nobody
// up: others are asked, and then the log is folded from entry 0.
func TestSlowLinks(t *testing.T) {
	l := long(t)
	size := len(l.State().Snapshot())
	const silence = 1500 * time.Millisecond                            // a machine under load is silent, too
	slow := link{"/snapshot", size / 20, 100 * time.Millisecond, 0}    // 2 s in all, two silences
	loris := link{"/snapshot", 1, 20 * time.Millisecond, 0}            // hours in all, and never silent
	stops := link{"/snapshot", size / 4, time.Millisecond, size/4 + 1} // and nothing comes any more
	none := link{"/nothing", 1, 0, 0}
	rate := int64(size / 10) // the slow link has three times as much
	minute := time.Minute
	for _, tt := range []struct {
		name    string
		soon    time.Duration
		links   []link
		snapped bool
		asked   []int64
		atMost  time.Duration
	}{
		{"slow", minute, []link{slow}, true, []int64{1}, minute},
		{"nothing more comes", minute, []link{stops}, false, []int64{1}, minute},
		{"drops", minute, []link{loris}, false, []int64{1}, minute},
		{"nothing more comes, another has it", minute, []link{stops, none}, true, []int64{1, 0}, minute},
		{"drops, another has it", minute, []link{loris, none}, true, []int64{1, 0}, minute},
		{"drops for long, another has it", 200 * time.Millisecond, []link{loris, none}, true, []int64{1, 0}, silence},
		{"both take long, one longer", 200 * time.Millisecond, []link{loris, slow}, true, []int64{1, 2}, minute},
		{"nothing comes from either", minute, []link{stops, stops}, false, []int64{2, 2}, minute},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var urls []string
			var asked []*atomic.Int64
			for _, k := range tt.links {
				url, n := k.serve(t, l)
				urls, asked = append(urls, url), append(asked, n)
			}
			folded := 0
			c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: urls, Snapshot: true,
				Progress:  func(string, int64, int64) { folded++ },
				OnRefused: func(where string, err error) { t.Errorf("%s was refused: %v", where, err) }})
			if err != nil {
				t.Fatal(err)
			}
			c.SetTimes(silence, rate, tt.soon)
			begin := time.Now()
			if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() {
				t.Fatalf("it does not start: %v", err)
			}
			if took := time.Since(begin); took > tt.atMost {
				t.Errorf("it took %s", took)
			}
			if snapped := folded < 5; snapped != tt.snapped {
				t.Errorf("%d entries were folded; from a snapshot: want %t", folded, tt.snapped)
			}
			for i, n := range asked {
				if n.Load() != tt.asked[i] {
					t.Errorf("ledger %d was asked for its snapshot %d times, want %d", i, n.Load(), tt.asked[i])
				}
			}
		})
	}
	for name, k := range map[string]link{"checkpoint": {"/checkpoint", 1, 20 * time.Millisecond, 0}, "no checkpoint": {"/checkpoint", 8, 0, 8}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url, _ := k.serve(t, l)
			c := l.Client("", url)
			c.SetTimes(silence, 1<<10, minute)
			if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrUnreachable) || !strings.Contains(err.Error(), "too slow") {
				t.Errorf("it says %v, want that it is too slow", err)
			}
		})
	}
}

// TestSlowReader: a server sends a snapshot for as long as somebody reads it, not
// for as long as an answer may take.
func TestSlowReader(t *testing.T) {
	l := ledgertest.New(t)
	want := make([]byte, 32<<20) // more than sockets keep
	if err := tiles.WriteFileSync(filepath.Join(l.Dir, "snapshot"), want, 0o644); err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(l.Handler())
	s.Config.WriteTimeout = 200 * time.Millisecond
	s.Start()
	defer s.Close()
	resp, err := http.Get(s.URL + "/snapshot")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	time.Sleep(time.Second)
	n, err := io.Copy(io.Discard, resp.Body)
	if err != nil || n != int64(len(want)) {
		t.Errorf("%d of %d bytes: %v", n, len(want), err)
	}
}
