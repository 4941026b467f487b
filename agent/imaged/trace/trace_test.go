// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// image is one of so many chunks, of two blocks each.
func image(chunks int) (m zimage.Manifest) {
	for range chunks {
		m.Chunks = append(m.Chunks, zimage.Chunk{Off: m.DiskSize, Size: 8192})
		m.DiskSize += 8192
	}
	return m
}

// old is the text of chunks, as nodes wrote it.
func old(chunks ...int) string {
	var b []byte
	last := 0
	for _, c := range chunks {
		b, last = binary.AppendVarint(b, int64(c-last)), c
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	m := image(1 << 19)
	for _, n := range []int{0, 1, 2, 50, 1 << 15} {
		l := extent.List{}
		for _, k := range r.Perm(1 << 20)[:n] {
			l = l.Add(int64(k))
		}
		got, err := Decode(Encode(l, MaxFile), m)
		if err != nil || !slices.Equal(got, l) {
			t.Errorf("%d blocks: %v, %v", n, got, err)
		}
		// What does not fit loses its end.
		text := Encode(l, MaxText)
		got, err = Decode(text, m)
		if err != nil || len(text) > MaxText || n > 1000 && len(got) < 1000 || !slices.Equal(got, l[:len(got)]) {
			t.Errorf("%d of %d runs in %d bytes, %v", len(got), len(l), len(text), err)
		}
	}
	// One byte too few is one run less.
	l := extent.List{{First: 3, Blocks: 1}, {First: 900, Blocks: 2}}
	full := len(Encode(l, MaxText))
	for room, want := range map[int]int{full: 2, full - 1: 1, 2: 0, 0: 0, -7: 0} {
		if got, err := Decode(Encode(l, room), m); err != nil || len(got) != want {
			t.Errorf("in %d bytes %v, %v", room, got, err)
		}
	}
}

// TestOlder: what nodes wrote in chunks is read as their blocks.
func TestOlder(t *testing.T) {
	got, err := Decode(old(4, 1, 2), image(5))
	if want := (extent.List{{First: 8, Blocks: 2}, {First: 2, Blocks: 2}, {First: 4, Blocks: 2}}); err != nil || !slices.Equal(got, want) {
		t.Errorf("%v, %v", got, err)
	}
	// A text of a node of that time, as it stands on a ledger.
	if got, err := Decode("BAMA", image(5)); err == nil {
		t.Errorf("a chunk twice: %v", got)
	}
	if got, err := Decode("CAUC", image(5)); err != nil || got.Blocks() != 6 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestRefused(t *testing.T) {
	for what, text := range map[string]string{
		"not base64":               "!",
		"blocks, not base64":       "b.!",
		"another form":             "c.AAAA",
		"behind the end":           old(10),
		"before the beginning":     old(-1),
		"twice":                    old(3, 4, 3),
		"half a number":            "gA",
		"too long":                 strings.Repeat("A", MaxFile+4),
		"a block behind the end":   Encode(extent.List{{First: 20, Blocks: 1}}, MaxText),
		"blocks over the end":      Encode(extent.List{{First: 19, Blocks: 2}}, MaxText),
		"a block twice":            Encode(extent.List{{First: 3, Blocks: 1}, {First: 9, Blocks: 1}, {First: 3, Blocks: 1}}, MaxText),
		"half a number of a block": "b.gA",
	} {
		if got, err := Decode(text, image(10)); !errors.Is(err, ErrText) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func TestIn(t *testing.T) {
	app, web := extent.List{{First: 8, Blocks: 2}, {First: 3, Blocks: 1}}, extent.List{{First: 4, Blocks: 1}}
	r := ledger.Record{Digests: map[string]string{"image/web": "sha256:a", "image/app": "sha256:b", "image/old": "sha256:c"},
		Detail: "guestKey/web=ssh-ed25519 x; " + Detail("app", app, 100) + Detail("web", web, 100) + key + "old=" + old(2) + "; "}
	for _, c := range []struct {
		image, machine string
		chunks         int
		want           extent.List
		exact          bool
	}{
		{"sha256:a", "web", 5, web, true},
		{"sha256:b", "app", 5, app, true},
		{"sha256:b", "", 4, nil, false}, // of another image
		{"sha256:c", "old", 5, extent.List{{First: 4, Blocks: 2}}, false},
	} {
		switch s := in(r, c.image, image(c.chunks)); {
		case s == nil:
			if c.want != nil {
				t.Errorf("%s: nothing", c.image)
			}
		case s.Machine != c.machine || !slices.Equal(s.Blocks, c.want) || s.Exact() != c.exact:
			t.Errorf("%s: %+v", c.image, s)
		}
	}
	for _, d := range []string{Detail("web", nil, 100), Detail("web", web, 16), Detail("web", web, -1)} {
		if d != "" {
			t.Errorf("nothing is said as %q", d)
		}
	}
	if d := Detail("web", web, 17); len(d) > 17 || !strings.HasPrefix(d, "trace/web=b.") {
		t.Errorf("%q", d)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(old(1, 2, 9, 3))
	f.Add(Encode(extent.List{{First: 7, Blocks: 3}, {First: 1, Blocks: 2}}, 100))
	f.Add("gA")
	m := image(100)
	f.Fuzz(func(t *testing.T, text string) {
		l, err := Decode(text, m)
		if err != nil {
			return
		}
		again, err := Decode(Encode(l, MaxFile), m)
		if err != nil || !slices.Equal(again, l) {
			t.Fatalf("%q: %v, then %v, %v", text, l, again, err)
		}
	})
}
