// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// waits gives two mirrors: from its nth request on, the first answers no request
// for a chunk until the client gives up, and says on late when the second was not
// asked for the same chunk meanwhile. From then on it answers at once.
func waits(first int) (slow, quick twist, late <-chan string) {
	type event struct {
		once sync.Once
		done chan struct{}
	}
	var events sync.Map // by path: the quick mirror was asked for it
	at := func(path string) *event {
		e, _ := events.LoadOrStore(path, &event{done: make(chan struct{})})
		return e.(*event)
	}
	const patience = 20 * time.Second // a first hedge comes after 2
	said, enough := make(chan string, 1), make(chan struct{})
	slow = func(n int, _ http.ResponseWriter, r *http.Request) bool {
		if n < first || !strings.HasPrefix(r.URL.Path, "/chunks/") {
			return false
		}
		select {
		case <-at(r.URL.Path).done:
			<-r.Context().Done()
			panic(http.ErrAbortHandler)
		case <-time.After(patience):
			select {
			case said <- r.URL.Path:
				close(enough)
			default:
			}
		case <-enough:
		}
		return false
	}
	quick = func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		e := at(r.URL.Path)
		e.once.Do(func() { close(e.done) })
		return false
	}
	return slow, quick, said
}

// TestSlowMirror: a mirror that holds its answers back does not hold the
// image up while another has it, and is left alone after a while.
func TestSlowMirror(t *testing.T) {
	s, m, id := converted(t, sample(t))
	holds, answers, late := waits(4)
	slow, quick := serveStore(t, s, holds), serveStore(t, s, answers)
	f, lies := fetcher(slow.URL, quick.URL)
	if _, err := f.Image(t.Context(), m, id, filepath.Join(t.TempDir(), "disk")); err != nil {
		t.Fatal(err)
	}
	select {
	case path := <-late:
		t.Fatalf("nobody asked the quick mirror for %s while the slow one was silent", path)
	default:
	}
	if n := quick.count("/chunks/"); n < len(m.Chunks)/2 {
		t.Errorf("the quick mirror was asked for %d of %d chunks", n, len(m.Chunks))
	}
	if n := slow.count("/chunks/"); n > 4+parallel+1 {
		t.Errorf("the slow mirror was asked for %d chunks", n)
	}
	if len(lies.errs) != 0 {
		t.Errorf("being slow was reported as a lie: %v", lies.errs)
	}
}

// TestHedgesAreFew: when every mirror is slow, they are not all asked for
// everything.
func TestHedgesAreFew(t *testing.T) {
	var p pace
	for range 1000 {
		p.asked++
		if p.hedgeAfter() > 0 {
			p.hedges++
		}
		p.took(time.Second)
	}
	if p.hedges > freeHedges+1000/hedgeShare || p.hedges < 1000/hedgeShare {
		t.Errorf("%d hedges of 1000", p.hedges)
	}
	if p.usual < 900*time.Millisecond || p.usual > 1100*time.Millisecond {
		t.Errorf("usual %v", p.usual)
	}
	quick := pace{usual: time.Millisecond}
	if quick.hedgeAfter() != leastHedge {
		t.Errorf("hedges after %v", quick.hedgeAfter())
	}
}
