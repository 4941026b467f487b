// SPDX-License-Identifier: Apache-2.0

package trace

import (
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/zos-node/zos/ledger"
)

func TestRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, n := range []int{0, 1, 2, 50, 400} {
		chunks := r.Perm(5000)[:n]
		got, err := Decode(Encode(chunks), 5000)
		if err != nil || !slices.Equal(got, chunks) && n > 0 {
			t.Errorf("%d chunks: %v, %v", n, got, err)
		}
	}
	// What does not fit loses its end.
	chunks := r.Perm(1 << 20)[:2000]
	text := Encode(chunks)
	got, err := Decode(text, 1<<20)
	if err != nil || len(text) > MaxText || len(got) < 300 || !slices.Equal(got, chunks[:len(got)]) {
		t.Errorf("%d of 2000 chunks in %d bytes, %v", len(got), len(text), err)
	}
}

func TestRefused(t *testing.T) {
	for what, text := range map[string]string{
		"not base64":           "!",
		"behind the end":       Encode([]int{10}),
		"before the beginning": Encode([]int{-1}),
		"twice":                Encode([]int{3, 4, 3}),
		"half a number":        "gA",
		"too long":             string(make([]byte, MaxText+1)),
	} {
		if got, err := Decode(text, 10); !errors.Is(err, ErrText) {
			t.Errorf("%s: %v, %v", what, got, err)
		}
	}
}

func TestIn(t *testing.T) {
	r := ledger.Record{Digests: map[string]string{"image/web": "sha256:a", "image/app": "sha256:b"},
		Detail: "guestKey/web=ssh-ed25519 x; " + Detail("app", []int{4, 1}) + Detail("web", []int{2, 3, 0})}
	if m, c := in(r, "sha256:a", 5); m != "web" || !slices.Equal(c, []int{2, 3, 0}) {
		t.Errorf("%s %v", m, c)
	}
	if m, c := in(r, "sha256:b", 5); m != "app" || !slices.Equal(c, []int{4, 1}) {
		t.Errorf("%s %v", m, c)
	}
	if m, c := in(r, "sha256:b", 4); c != nil {
		t.Errorf("of another image: %s %v", m, c)
	}
	if Detail("web", nil) != "" {
		t.Error("an empty trace says something")
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(Encode([]int{1, 2, 9, 3}))
	f.Add("gA")
	f.Fuzz(func(t *testing.T, text string) {
		chunks, err := Decode(text, 100)
		if err != nil {
			return
		}
		again, err := Decode(Encode(chunks), 100)
		if err != nil || !slices.Equal(again, chunks) {
			t.Fatalf("%q: %v, then %v, %v", text, chunks, again, err)
		}
	})
}
