// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// TestMapImage: every byte of every file is where the map says.
func TestMapImage(t *testing.T) {
	files := map[string][]byte{"/a": noise(100, 1), "/b/big": noise(600<<10, 2), "/b/tail": noise(5000, 3), "/b/0": noise(70000, 4), "/d": noise(4096, 5)}
	img := ociImage(t,
		[]item{file("a", files["/a"]), file("b/big", noise(10, 9)), file("c", files["/b/0"]), link("hard", "c"), link("b/0", "c")},
		[]item{file("b/big", files["/b/big"]), file("b/tail", files["/b/tail"]), file("empty", nil)},
		[]item{file("d", files["/d"])})
	s, m, _ := converted(t, img)
	got, err := MapImage(t.Context(), img, m, t.TempDir(), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]int{"/a": 0, "/b/big": 1, "/b/tail": 1, "/b/0": 0, "/d": 2}
	for _, f := range got.Files {
		if layer, ok := want[f.Path]; !ok || f.Layer != layer || f.Size != int64(len(files[f.Path])) || len(f.Chunks) == 0 {
			t.Errorf("%+v", f)
		}
		delete(want, f.Path)
		if links := map[string][]string{"/b/0": {"/c", "/hard"}}[f.Path]; !slices.Equal(f.Links, links) {
			t.Errorf("%s has the other names %q, want %q", f.Path, f.Links, links)
		}
		var all []byte
		for _, i := range f.Chunks {
			b, err := s.Chunk(m.Chunks[i])
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, b...)
		}
		content := files[f.Path]
		for _, part := range [][]byte{content[:min(len(content), 100)], content[max(0, len(content)-100):]} {
			if !bytes.Contains(all, part) {
				t.Errorf("%s is not in its chunks %v", f.Path, f.Chunks)
			}
		}
	}
	if len(want) > 0 {
		t.Errorf("not in the map: %v", want)
	}
	if l := got.Layers; len(l) != 3 || l[0].Files != 2 || l[1].Files != 2 || l[2].Bytes != 4096 {
		t.Errorf("layers %+v", l)
	}
	if _, err := MapImage(t.Context(), sample(t), m, t.TempDir(), nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("the map of another image: %v", err)
	}
}

func TestShared(t *testing.T) {
	a := Manifest{Chunks: []Chunk{{ID: "a", Size: 1}, {ID: "b", Size: 2}, {ID: "a", Size: 1}}}
	b := Manifest{Chunks: []Chunk{{ID: "b", Size: 2}, {ID: "c", Size: 4}}}
	if n, bytes := Shared(a, b); n != 1 || bytes != 2 {
		t.Errorf("shared %d %d", n, bytes)
	}
	if n, bytes := Unique(a); n != 2 || bytes != 3 {
		t.Errorf("unique %d %d", n, bytes)
	}
}
