// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// stuck answers nothing to requests for chunks from the nth on, until the
// client gives up.
func stuck(first int) twist {
	return func(n int, _ http.ResponseWriter, r *http.Request) bool {
		if n < first || !strings.HasPrefix(r.URL.Path, "/chunks/") {
			return false
		}
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
}

// TestSlowMirror: a mirror that holds its answers back does not hold the
// image up while another has it, and is left alone after a while.
func TestSlowMirror(t *testing.T) {
	s, m, id := converted(t, sample(t))
	slow, quick := serveStore(t, s, stuck(4)), serveStore(t, s, nil)
	f, lies := fetcher(slow.URL, quick.URL)
	if _, err := f.Image(t.Context(), m, id, filepath.Join(t.TempDir(), "disk")); err != nil {
		t.Fatal(err)
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
