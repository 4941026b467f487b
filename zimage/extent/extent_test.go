// SPDX-License-Identifier: Apache-2.0

package extent

import (
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 50, 4000} {
		l := List{}
		for _, b := range r.Perm(9000)[:n] {
			l = l.Add(int64(b))
		}
		if l.Blocks() != int64(n) {
			t.Errorf("%d of %d blocks", l.Blocks(), n)
		}
		got, err := Decode(l.Encode(1<<20), 9000)
		if err != nil || !slices.Equal(got, l) {
			t.Errorf("%d blocks: %v, %v", n, got, err)
		}
		// What does not fit loses its end.
		short := l.Encode(100)
		got, err = Decode(short, 9000)
		if err != nil || len(short) > 100 || !slices.Equal(got, l[:len(got)]) || n > 50 && len(got) < 20 {
			t.Errorf("%d runs of %d in %d bytes: %v", len(got), len(l), len(short), err)
		}
	}
	if l := (List{}).Add(7).Add(8).Add(9).Add(2); !slices.Equal(l, List{{7, 3}, {2, 1}}) {
		t.Errorf("blocks in a row: %v", l)
	}
}

func TestRefused(t *testing.T) {
	for what, b := range map[string][]byte{
		"behind the end":       List{{9, 2}}.Encode(100),
		"before the beginning": List{{-1, 1}}.Encode(100),
		"no end in sight":      List{{0, 11}}.Encode(100),
		"twice":                List{{3, 2}, {8, 1}, {4, 1}}.Encode(100),
		"within another":       List{{0, 9}, {4, 1}}.Encode(100),
		"half a distance":      {0x80},
		"no length":            {0x02},
		"half a length":        {0x02, 0x80},
		"too far":              {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0x00},
		"over all numbers":     append(binary.AppendVarint(nil, math.MaxInt64), 0x01),
		"too long":             {0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01},
	} {
		if got, err := Decode(b, 10); !errors.Is(err, ErrList) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
	if got, err := Decode(List{{9, 1}, {0, 9}}.Encode(100), 10); err != nil || got.Blocks() != 10 {
		t.Errorf("all of them: %v, %v", got, err)
	}
}

func TestSet(t *testing.T) {
	s := NewSet(130)
	for _, b := range []int64{0, 63, 64, 129} {
		if s.Has(b) || !s.Add(b) || s.Add(b) || !s.Has(b) || s.Has(b^1) {
			t.Errorf("block %d", b)
		}
	}
	if s.Len() != 4 {
		t.Errorf("%d blocks", s.Len())
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(List{{1, 2}, {9, 3}}.Encode(100))
	f.Add([]byte{0x80})
	f.Fuzz(func(t *testing.T, b []byte) {
		l, err := Decode(b, 100)
		if err != nil {
			return
		}
		s := NewSet(100)
		for _, e := range l {
			for k := e.First; k < e.End(); k++ {
				if !s.Add(k) {
					t.Fatalf("block %d twice in %v", k, l)
				}
			}
		}
		again, err := Decode(l.Encode(1<<20), 100)
		if err != nil || !slices.Equal(again, l) {
			t.Fatalf("%v, then %v, %v", l, again, err)
		}
	})
}
