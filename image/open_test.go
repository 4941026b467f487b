// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// TestRewrite: a medium that is read and written again has the same bytes, and
// a seed changes nothing but the seed.
func TestRewrite(t *testing.T) {
	eachMedium(t, func(t *testing.T, m medium) {
		img := m.make(t, 1_000_000)
		same, seeded := filepath.Join(t.TempDir(), "same"), filepath.Join(t.TempDir(), "seeded")
		if err := Rewrite(img, same, func(*Boot) {}); err != nil {
			t.Fatal(err)
		}
		a, err1 := fileItem(img)
		b, err2 := fileItem(same)
		if err1 != nil || err2 != nil || a != b {
			t.Errorf("%+v became %+v, %v, %v", a, b, err1, err2)
		}
		if err := Rewrite(img, seeded, func(b *Boot) { b.Seed = []byte("other") }); err != nil {
			t.Fatal(err)
		}
		got, err := Open(seeded)
		if err != nil {
			t.Fatal(err)
		}
		old, err := Open(img)
		if err != nil || !got.Same(old) || string(got.Seed) != "other" || got.Version != "1" || len(got.Keys) != 3 {
			t.Errorf("%v: seed %q, version %q, %d keys", err, got.Seed, got.Version, len(got.Keys))
		}
		if want := map[string]string{"disk": KindDisk, "disk4k": KindDisk, "iso": KindISO}[m.name]; got.Kind != want || got.Sector != m.sector {
			t.Errorf("kind %s, sectors of %d", got.Kind, got.Sector)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("hello"), "zeros": make([]byte, 1<<20), "pe": append([]byte("MZ"), make([]byte, 300)...), "many": bytes.Repeat([]byte("EFI PART"), 9999)} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(p); !errors.Is(err, ErrMedium) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
