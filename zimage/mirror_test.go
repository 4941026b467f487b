// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"fmt"
	"net/http"
	"path/filepath"
	"testing"
)

// TestBadMirrorIsAskedLast: a mirror that has every chunk wrong, has none, or
// answers nothing, stands first in the list and is asked a few times, not for
// every chunk.
func TestBadMirrorIsAskedLast(t *testing.T) {
	var items []item
	for i := range 80 { // a chunk each
		items = append(items, file(fmt.Sprint(i), noise(200<<10, byte(i))))
	}
	s, m, id := converted(t, ociImage(t, items))
	for name, answer := range map[string]http.HandlerFunc{
		"lies":    func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "no zstd") },
		"lacks":   http.NotFound,
		"is dead": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		t.Run(name, func(t *testing.T) {
			bad := serveStore(t, s, func(_ int, w http.ResponseWriter, r *http.Request) bool {
				answer(w, r)
				return true
			})
			f, _ := fetcher(bad.URL, serveStore(t, s, nil).URL)
			if _, err := f.Image(t.Context(), m, id, filepath.Join(t.TempDir(), "disk")); err != nil {
				t.Fatal(err)
			}
			// Those under way before its first answer, and where the other is slow.
			most := parallel + freeHedges + len(m.Chunks)/hedgeShare
			if n := bad.count("/"); n == 0 || n > most || most > len(m.Chunks)/2 {
				t.Errorf("it was asked %d times for %d chunks, want 1 to %d", n, len(m.Chunks), most)
			}
		})
	}
}
