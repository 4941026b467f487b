// SPDX-License-Identifier: Apache-2.0

package content

import (
	"io"
	"net/http"
	"testing"

	"github.com/zos-node/zos/zimage"
)

// TestManifestAhead: a start pack is asked for beside the manifest of an image that
// will be served, is there to be taken once, and for no image of which the manifest
// is here.
func TestManifestAhead(t *testing.T) {
	o := newOrigin(t, 5000)
	id := o.ids[0]
	for _, served := range []bool{false, true} {
		c := o.config(t.TempDir())
		c.Fetch = &zimage.Fetcher{Mirrors: []string{o.url}, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
		s, err := Open(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, first := range []bool{true, false} {
			m, err := s.ManifestAhead(t.Context(), id, func(m zimage.Manifest) bool {
				if !first {
					t.Error("a mirror was asked for a manifest that is here")
				}
				return served
			})
			if err != nil || m.Verity.Root != o.manifests[0].Verity.Root {
				t.Fatalf("%+v, %v", m, err)
			}
			if p := s.PackAhead(id); (p != nil) != (served && first) {
				t.Errorf("served %v, first %v: the pack is %v", served, first, p)
			} else if p != nil {
				if err := p.Send(io.Discard); err != nil { // that the mirror has none
					t.Error(err)
				}
			}
			if s.PackAhead(id) != nil {
				t.Error("it is there twice")
			}
		}
	}
}
