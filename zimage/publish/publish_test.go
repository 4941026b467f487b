// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"encoding/hex"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
	"github.com/zos-node/zos/zimage/zimagetest"
)

// recorder is a folder that remembers what was asked, and fails on demand.
type recorder struct {
	Folder
	mu    sync.Mutex
	puts  []string
	fail  error
	after int // requests until it fails; once
}

func (r *recorder) trip() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.after--; r.after == 0 {
		return r.fail
	}
	return nil
}

func (r *recorder) Size(ctx context.Context, name string) (int64, error) {
	if err := r.trip(); err != nil {
		return 0, err
	}
	return r.Folder.Size(ctx, name)
}

func (r *recorder) Put(ctx context.Context, o zimage.Object) error {
	if err := r.trip(); err != nil {
		return err
	}
	r.mu.Lock()
	r.puts = append(r.puts, o.Name)
	r.mu.Unlock()
	return r.Folder.Put(ctx, o)
}

func convert(t *testing.T, s *zimage.Store, files map[string]int) (zimage.Manifest, string) {
	t.Helper()
	m, id, err := zimage.Convert(t.Context(), zimagetest.Image(t, files), "linux/amd64", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m, id
}

func openStore(t *testing.T, dir string) *zimage.Store {
	t.Helper()
	s, err := zimage.OpenStore(dir)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestOnlyWhatIsMissing(t *testing.T) {
	from, to := openStore(t, t.TempDir()), &recorder{Folder: Folder(t.TempDir())}
	m, id := convert(t, from, map[string]int{"big": 2 << 20, "small": 5000})
	var done, total int64
	r, err := Image(t.Context(), from, id, to, func(d, of int64) { done, total = d, of })
	if err != nil {
		t.Fatal(err)
	}
	if int(r.Sent) != len(m.Chunks)+3 || r.Had != 0 || done != total || done != m.DiskSize {
		t.Errorf("first: %+v, %d of %d bytes", r, done, total)
	}
	if last := to.puts[len(to.puts)-2:]; !strings.HasPrefix(last[0], "manifests/") || !strings.HasPrefix(last[1], "by-oci/") {
		t.Errorf("last came %q", last)
	}
	if _, err := openStore(t, string(to.Folder)).Verify(t.Context(), id, nil); err != nil {
		t.Errorf("what was published: %v", err)
	}
	if r, err := Image(t.Context(), from, id, to, nil); err != nil || r.Sent != 0 || int(r.Had) != len(m.Chunks)+3 {
		t.Errorf("again: %+v %v", r, err)
	}
	// A hint of another format has the same length.
	hint := filepath.Join(string(to.Folder), to.puts[len(to.puts)-1])
	right, err := os.ReadFile(hint)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(hint, []byte(strings.Replace(string(right), id, "sha256:"+strings.Repeat("0", 64), 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err = Image(t.Context(), from, id, to, nil)
	if mended, rerr := os.ReadFile(hint); err != nil || rerr != nil || r.Sent != 1 || r.Replaced != 1 || string(mended) != string(right) {
		t.Errorf("an older hint: %+v, %v, %v, %q", r, err, rerr, mended)
	}
	// An image with one file more shares the big one.
	_, other := convert(t, from, map[string]int{"big": 2 << 20, "small": 5000, "more": 100 << 10})
	r, err = Image(t.Context(), from, other, to, nil)
	if err != nil || r.Had < 8 || r.SentBytes > 400<<10 {
		t.Errorf("an image that shares a file: %+v %v", r, err)
	}
}

func TestGoesOnWhereItBroke(t *testing.T) {
	from := openStore(t, t.TempDir())
	_, id := convert(t, from, map[string]int{"big": 3 << 20})
	to := &recorder{Folder: Folder(t.TempDir()), after: 13, fail: errors.New("gone")}
	if _, err := Image(t.Context(), from, id, to, nil); !errors.Is(err, to.fail) {
		t.Fatalf("got %v", err)
	}
	if slices.ContainsFunc(to.puts, func(name string) bool { return strings.HasPrefix(name, "manifests/") }) {
		t.Error("a manifest without its chunks")
	}
	sent := len(to.puts)
	r, err := Image(t.Context(), from, id, to, nil)
	if err != nil || int(r.Had) != sent || sent == 0 {
		t.Errorf("went on: %+v %v, %d were there", r, err, sent)
	}
	// What may pass is asked again.
	to = &recorder{Folder: Folder(t.TempDir()), after: 5, fail: ErrTemporary}
	if _, err := Image(t.Context(), from, id, to, nil); err != nil {
		t.Errorf("a temporary failure: %v", err)
	}
}

// TestMends: what is there and too short is replaced; what has other bytes when
// that is looked for.
func TestMends(t *testing.T) {
	from, to := openStore(t, t.TempDir()), &recorder{Folder: Folder(t.TempDir())}
	m, id := convert(t, from, map[string]int{"big": 2 << 20, "small": 5000})
	if _, err := Image(t.Context(), from, id, to, nil); err != nil {
		t.Fatal(err)
	}
	at := func(name string) string { return filepath.Join(string(to.Folder), filepath.FromSlash(name)) }
	manifest, doc := "manifests/"+strings.TrimPrefix(id, "sha256:")+".json", "blobs/"+strings.TrimPrefix(m.SBOM, "sha256:")
	publishes := func(what string, publish func(context.Context, *zimage.Store, string, Bucket, func(int64, int64)) (Report, error), replaced int64, whole bool) {
		t.Helper()
		r, err := publish(t.Context(), from, id, to, nil)
		if err != nil || r.Replaced != replaced || r.Sent != replaced || int(r.Had) != len(m.Chunks)+3-int(replaced) {
			t.Errorf("%s: %+v %v, want %d replaced", what, r, err, replaced)
		}
		if _, err := openStore(t, string(to.Folder)).Verify(t.Context(), id, nil); (err == nil) != whole {
			t.Errorf("%s: verified: %v, want %v", what, err, whole)
		}
	}
	for _, name := range []string{zimage.ChunkObjectName(m.Chunks[1]), manifest, doc} {
		if err := os.Truncate(at(name), 100); err != nil {
			t.Fatal(err)
		}
	}
	publishes("cut", Image, 3, true)
	for _, name := range []string{zimage.ChunkObjectName(m.Chunks[1]), zimage.ChunkObjectName(m.Chunks[4]), doc} {
		b, err := os.ReadFile(at(name))
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		if err := os.WriteFile(at(name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	publishes("altered, not looked at", Image, 0, false)
	publishes("altered", Check, 3, true)
	publishes("all is right", Check, 0, true)
}

func TestWhatIsWrongHereIsNotSent(t *testing.T) {
	dir := t.TempDir()
	from := openStore(t, dir)
	m, id := convert(t, from, map[string]int{"big": 1 << 20})
	name := filepath.Join(dir, zimage.ChunkObjectName(m.Chunks[2]))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	to := &recorder{Folder: Folder(t.TempDir())}
	if _, err := Image(t.Context(), from, id, to, nil); !errors.Is(err, zimage.ErrMismatch) {
		t.Errorf("an altered chunk: %v", err)
	}
	if slices.Contains(to.puts, zimage.ChunkObjectName(m.Chunks[2])) {
		t.Error("it was sent")
	}
	if _, err := Image(t.Context(), from, "sha256:"+strings.Repeat("0", 64), to, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an image that is not there: %v", err)
	}
}

func TestBlob(t *testing.T) {
	from := openStore(t, t.TempDir())
	file := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(file, make([]byte, 100000), 0o600); err != nil {
		t.Fatal(err)
	}
	digest, err := from.AddBlob(file)
	if err != nil {
		t.Fatal(err)
	}
	to := Folder(t.TempDir())
	for sent := int64(1); sent >= 0; sent-- {
		if r, err := Blob(t.Context(), from, digest, to); err != nil || r.Sent != sent {
			t.Errorf("%+v %v", r, err)
		}
	}
	path := filepath.Join(string(to), "blobs", digest[7:])
	other := make([]byte, 100000)
	other[7] = 1
	if err := os.WriteFile(path, other, 0o600); err != nil {
		t.Fatal(err)
	}
	for replaced := int64(1); replaced >= 0; replaced-- {
		if r, err := CheckBlob(t.Context(), from, digest, to); err != nil || r.Sent != replaced || r.Replaced != replaced {
			t.Errorf("%+v %v", r, err)
		}
	}
	// An empty file is what a power cut leaves: it is written anew.
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	if r, err := Blob(t.Context(), from, digest, to); err != nil || r.Sent != 1 {
		t.Errorf("%+v %v", r, err)
	}
}

// TestStartPack: a start pack takes the place of an older one, and is what nodes
// read.
func TestStartPack(t *testing.T) {
	from, to := openStore(t, t.TempDir()), &recorder{Folder: Folder(t.TempDir())}
	m, id := convert(t, from, map[string]int{"big": 2 << 20, "small": 5000})
	img := pack.Image{DataSize: m.DataSize}
	if _, err := hex.Decode(img.Root[:], []byte(m.Verity.Root)); err != nil {
		t.Fatal(err)
	}
	for _, start := range []extent.List{{{First: 3, Blocks: 2}}, {{First: 100, Blocks: 1}, {First: 0, Blocks: 1}}} {
		var done, total int64
		r, made, err := StartPack(t.Context(), from, id, start, to, func(d, of int64) { done, total = d, of })
		if err != nil || r.Sent != 1 || made.Blocks-made.Hashes != start.Blocks() || done != start.Blocks()*4096 || total != done {
			t.Errorf("%+v, %+v, %d of %d bytes: %v", r, made, done, total, err)
		}
		f, err := os.Open(filepath.Join(string(to.Folder), "starts", strings.TrimPrefix(id, "sha256:")+".br"))
		if err != nil {
			t.Fatal(err)
		}
		var got extent.List
		err = pack.Read(f, img, pack.Reading{Index: func(extent.List) error { return nil }, Block: func(k int64, _ []byte) error {
			if k < m.DataSize/4096 {
				got = got.Add(k)
			}
			return nil
		}})
		if err := errors.Join(err, f.Close()); err != nil || !slices.Equal(got, start) {
			t.Errorf("in it are %v, want %v: %v", got, start, err)
		}
	}
	if _, _, err := StartPack(t.Context(), from, id, extent.List{}, to, nil); err == nil {
		t.Error("a pack of nothing")
	}
}
