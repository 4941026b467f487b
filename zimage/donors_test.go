// SPDX-License-Identifier: Apache-2.0

package zimage_test

import (
	"bytes"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/zimagetest"
)

// versions makes two images that share a file, of which another file differs, and
// the whole disk of the first.
func versions(t *testing.T) (store *zimage.Store, one, two zimage.Manifest, id, disk string) {
	t.Helper()
	store, err := zimage.OpenStore(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	var old string
	if one, old, err = zimage.Convert(t.Context(), zimagetest.Image(t, map[string]int{"a": 1 << 20, "b": 100 << 10}), "linux/amd64", store, nil); err != nil {
		t.Fatal(err)
	}
	if two, id, err = zimage.Convert(t.Context(), zimagetest.Image(t, map[string]int{"a": 1 << 20, "b": 101 << 10}), "linux/amd64", store, nil); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(zimage.Handler(store))
	defer srv.Close()
	disk = filepath.Join(t.TempDir(), "one.img")
	if _, err := (&zimage.Fetcher{Mirrors: []string{srv.URL}}).Image(t.Context(), one, old, disk); err != nil {
		t.Fatal(err)
	}
	return store, one, two, id, disk
}

// shared are the places of the second's chunks that the first has.
func shared(one, two zimage.Manifest) (out []int) {
	for i, c := range two.Chunks {
		if slices.ContainsFunc(one.Chunks, func(o zimage.Chunk) bool { return o.ID == c.ID }) {
			out = append(out, i)
		}
	}
	return out
}

// TestDonors: what a donor has is read from it, and only that is right; it is
// looked for when the first chunk is asked for, and in no further donors than needed.
func TestDonors(t *testing.T) {
	store, one, two, _, disk := versions(t)
	have := shared(one, two)
	if len(have) < 4 || len(have) == len(two.Chunks) {
		t.Fatalf("%d of %d chunks are shared: the test does not test", len(have), len(two.Chunks))
	}
	found := 0
	d := zimage.NewDonors(two, func(d *zimage.Donors) {
		found++
		if left := d.Add(one, disk); left != len(two.Chunks)-len(have) {
			t.Errorf("%d chunks are to be found still, want %d", left, len(two.Chunks)-len(have))
		}
		if left := d.Add(one, disk+"-again"); left != len(two.Chunks)-len(have) {
			t.Errorf("%d chunks are to be found still after the same once more", left)
		}
	})
	if found != 0 {
		t.Error("it looked before anybody asked")
	}
	for i, c := range two.Chunks {
		b := d.Chunk(c)
		if has := slices.Contains(have, i); (b != nil) != has || d.Has(c) != has {
			t.Errorf("chunk %d: given %v, has %v, want %v", i, b != nil, d.Has(c), has)
		}
		if want, err := store.Chunk(c); err != nil || b != nil && !bytes.Equal(b, want) {
			t.Errorf("chunk %d is wrong, %v", i, err)
		}
	}
	if n, _ := d.Given(); n != len(have) || found != 1 || len(d.Doubtful()) != 0 {
		t.Errorf("%d given, looked %d times", n, found)
	}
	c := two.Chunks[have[0]]
	c.Size += 4096
	if d.Has(c) || d.Chunk(c) != nil {
		t.Error("a chunk of another size is the same to it")
	}
	odd := one
	odd.Chunks = slices.Clone(one.Chunks)
	for i := range odd.Chunks {
		odd.Chunks[i].Size += 4096
	}
	if left := zimage.NewDonors(two, func(*zimage.Donors) {}).Add(odd, disk); left != len(two.Chunks) {
		t.Errorf("%d chunks have another size in a donor and are the same", len(two.Chunks)-left)
	}
	var none *zimage.Donors
	if n, _ := none.Given(); n != 0 || none.Has(c) || none.Chunk(c) != nil || none.Doubtful() != nil {
		t.Error("none has something")
	}
}

// TestWrongDonor: nothing of a donor is used that is not what it should be, and
// whoever asks hears of it once; of one that is gone, nobody does.
func TestWrongDonor(t *testing.T) {
	store, one, two, id, disk := versions(t)
	srv := httptest.NewServer(zimage.Handler(store))
	defer srv.Close()
	have := shared(one, two)
	right, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	at := one.Chunks[slices.IndexFunc(one.Chunks, func(c zimage.Chunk) bool { return c.ID == two.Chunks[have[1]].ID })]
	for name, c := range map[string]struct {
		alter   func() error
		doubted bool
		given   func(n int) bool
	}{
		"right": {func() error { return nil }, false, func(n int) bool { return n == len(have) }},
		"a bit": {func() error {
			b := bytes.Clone(right)
			b[at.Off+at.Size/2] ^= 4
			return os.WriteFile(disk, b, 0o600)
		}, true, func(n int) bool { return n == len(have)-1 }},
		"all of it": {func() error { return os.WriteFile(disk, make([]byte, len(right)), 0o600) }, true, func(n int) bool { return n == 0 }},
		"cut":       {func() error { return os.WriteFile(disk, right[:at.Off+1], 0o600) }, true, func(n int) bool { return n > 0 && n < len(have) }},
		"a folder":  {func() error { return os.Mkdir(disk, 0o700) }, true, func(n int) bool { return n == 0 }},
		"gone":      {func() error { return nil }, false, func(n int) bool { return n == 0 }},
	} {
		t.Run(name, func(t *testing.T) {
			if err := os.RemoveAll(disk); err != nil {
				t.Fatal(err)
			}
			if name == "right" {
				if err := os.WriteFile(disk, right, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.alter(); err != nil {
				t.Fatal(err)
			}
			d := zimage.NewDonors(two, func(d *zimage.Donors) { d.Add(one, disk) })
			path := filepath.Join(t.TempDir(), "two.img")
			bytes, err := (&zimage.Fetcher{Mirrors: []string{srv.URL}}).ImageBeside(t.Context(), two, id, path, d)
			if err != nil {
				t.Fatal(err)
			}
			if err := zimage.VerifyImage(path, two); err != nil {
				t.Error(err)
			}
			n, given := d.Given()
			if !c.given(n) || bytes < two.DiskSize-given-256<<10 { // what a mirror sends of metadata and tree is less
				t.Errorf("given %d of %d chunks (%d bytes of %d), received %d", n, len(have), given, two.DiskSize, bytes)
			}
			want := []string{disk}
			if !c.doubted {
				want = nil
			}
			if got := d.Doubtful(); !slices.Equal(got, want) || d.Doubtful() != nil {
				t.Errorf("doubted %v, want %v, once", got, want)
			}
		})
	}
}
