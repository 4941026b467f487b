// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// alter changes an image's manifest.
func alter(t *testing.T, m *memory, change func(man map[string]any)) *memory {
	t.Helper()
	var man map[string]any
	if err := json.Unmarshal(m.manifest, &man); err != nil {
		t.Fatal(err)
	}
	change(man)
	m.manifest = mustJSON(t, man)
	return m
}

func layerOf(man map[string]any) map[string]any { return man["layers"].([]any)[0].(map[string]any) }

func TestConvertRefuses(t *testing.T) {
	small := func() *memory { return ociImage(t, []item{file("a", []byte("content"))}) }
	blobOf := func(m *memory) string {
		var digest string
		alter(t, m, func(man map[string]any) { digest = layerOf(man)["digest"].(string) })
		return digest
	}
	for _, c := range []struct {
		name string
		src  func() *memory
		want error
	}{
		{"layer altered", func() *memory {
			m := small()
			d := blobOf(m)
			m.blobs[d] = append(bytes.Clone(m.blobs[d]), 0)
			return m
		}, ErrMismatch},
		{"layer cut off", func() *memory {
			m := small()
			d := blobOf(m)
			m.blobs[d] = m.blobs[d][:len(m.blobs[d])-5]
			return m
		}, ErrMismatch},
		{"layer is a right one, but not by diff id", func() *memory {
			m := small()
			var b bytes.Buffer
			z := gzip.NewWriter(&b)
			if _, err := z.Write(tarOf(t, []item{file("a", []byte("other"))})); err != nil {
				t.Fatal(err)
			}
			if err := z.Close(); err != nil {
				t.Fatal(err)
			}
			return alter(t, m, func(man map[string]any) { man["layers"] = []any{m.put(b.Bytes())} })
		}, ErrMismatch},
		{"size is another", func() *memory {
			return alter(t, small(), func(man map[string]any) { layerOf(man)["size"] = 1 })
		}, ErrMismatch},
		{"negative size", func() *memory {
			return alter(t, small(), func(man map[string]any) { layerOf(man)["size"] = -1 })
		}, ErrSource},
		{"digest of another kind", func() *memory {
			return alter(t, small(), func(man map[string]any) { layerOf(man)["digest"] = "sha512:00" })
		}, ErrSource},
		{"a layer more than diff ids", func() *memory {
			return alter(t, small(), func(man map[string]any) { man["layers"] = append(man["layers"].([]any), layerOf(man)) })
		}, ErrSource},
		{"no manifest", func() *memory { m := small(); m.manifest = []byte("x"); return m }, ErrSource},
		{"an index", func() *memory { m := small(); m.manifest = []byte(`{"manifests":[]}`); return m }, ErrSource},
		{"another platform", func() *memory {
			m := small()
			cfg := mustJSON(t, map[string]any{"architecture": "arm64", "os": "linux"})
			return alter(t, m, func(man map[string]any) { man["config"] = m.put(cfg); man["layers"] = []any{} })
		}, ErrSource},
		{"user that is not there", func() *memory { return ociImageOf(t, map[string]any{"User": "nobody"}) }, ErrSource},
		{"layer is no tar", func() *memory { return ociImageOf(t, nil, bytes.Repeat([]byte("no tar"), 1000)) }, flat.ErrLayer},
		{"name leads out", func() *memory { return ociImage(t, []item{file("a/../../b", nil)}) }, flat.ErrLayer},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := openTestStore(t)
			if _, _, err := Convert(t.Context(), c.src(), "linux/amd64", s, nil); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			left, err := filepath.Glob(filepath.Join(s.Dir(), "*", "*"))
			if err != nil || len(left) != 0 {
				t.Errorf("left in the store: %v %v", left, err)
			}
		})
	}
}

// TestLayerBomb: a layer may not unpack to more than allowed, whatever the
// tar in it says, or does not say, of itself.
func TestLayerBomb(t *testing.T) {
	m := ociImage(t, []item{file("a", make([]byte, 4<<20))})
	var man ociManifest
	if err := json.Unmarshal(m.manifest, &man); err != nil {
		t.Fatal(err)
	}
	d := man.Layers[0]
	if d.Size > 64<<10 {
		t.Fatalf("the bomb has %d bytes", d.Size)
	}
	left := int64(1 << 20)
	spool, err := openTestStore(t).temp()
	if err != nil {
		t.Fatal(err)
	}
	defer spool.Close()
	tree := flat.New(spool, flat.DefaultLimits())
	if err := readLayer(t.Context(), m, d, "", &left, nil, tree.Layer); !errors.Is(err, ErrSource) {
		t.Errorf("got %v", err)
	}
	if at, err := spool.Seek(0, 1); err != nil || at > 1<<20 {
		t.Errorf("%d bytes in the spool, %v", at, err)
	}
}

func TestConvertStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	_, _, err := Convert(ctx, sample(t), "linux/amd64", openTestStore(t), func(done, total int64) {
		if done > total {
			t.Errorf("%d of %d", done, total)
		}
		cancel()
	})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

func TestDefaults(t *testing.T) {
	accounts := []item{
		file("etc/passwd", []byte("root:x:0:0::/:\nweb:x:33:34::/:\nbroken\nodd:x:x:1::/:\n")),
		file("etc/group", []byte("root:x:0:\nlog:x:55:web\n")),
	}
	for _, c := range []struct{ user, want string }{
		{"", "0:0"}, {"web", "33:34"}, {"33", "33:34"}, {"web:log", "33:55"}, {"web:7", "33:7"}, {"99", "99:0"}, {"99:98", "99:98"},
		{"0", "0:0"}, {":log", "0:55"}, {"odd", ""}, {"nobody", ""}, {"web:none", ""}, {"-1", ""}, {"007", ""}, {"4294967296", ""},
	} {
		_, _, err := Convert(t.Context(), ociImageOf(t, map[string]any{"User": c.user}, tarOf(t, accounts)), "linux/amd64", openTestStore(t), nil)
		if (err == nil) != (c.want != "") {
			t.Errorf("user %q: %v", c.user, err)
		}
		if err != nil {
			continue
		}
		_, m, _ := converted(t, ociImageOf(t, map[string]any{"User": c.user, "Env": nil, "Cmd": []string{"x"}}, tarOf(t, accounts)))
		want := Defaults{Entrypoint: []string{}, Cmd: []string{"x"}, Env: []string{}, WorkingDir: "/", User: c.want, StopSignal: "SIGTERM"}
		if !reflect.DeepEqual(m.Config, want) {
			t.Errorf("user %q: %+v", c.user, m.Config)
		}
	}
}

// TestStoreHeals: what lost power left behind is written anew.
func TestStoreHeals(t *testing.T) {
	s, m, id := converted(t, sample(t))
	broken := filepath.Join(s.Dir(), chunkName(m.Chunks[1].ID))
	put(t, broken, nil)
	if _, err := s.Verify(t.Context(), id, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("verify: %v", err)
	}
	again, err := OpenStore(s.Dir())
	if err != nil {
		t.Fatal(err)
	}
	if _, got, err := Convert(t.Context(), sample(t), "linux/amd64", again, nil); err != nil || got != id {
		t.Errorf("%s %v", got, err)
	}
	if n := again.Added().Chunks; n != 1 {
		t.Errorf("%d chunks written", n)
	}
	if _, err := again.Verify(t.Context(), id, nil); err != nil {
		t.Error(err)
	}
	left, err := os.ReadDir(filepath.Join(s.Dir(), "tmp"))
	if err != nil || len(left) != 0 {
		t.Errorf("temporary files left: %v %v", left, err)
	}
}

// TestSharedFileSharesChunks: a large file has the same chunks in any image.
func TestSharedFileSharesChunks(t *testing.T) {
	lib := file("usr/lib/shared", noise(1<<20+5, 7))
	s := openTestStore(t)
	for _, items := range [][]item{
		{lib, file("a", noise(100, 1))},
		{file("a/b", noise(50000, 2)), lib, file("z", noise(200<<10, 3))},
	} {
		if _, _, err := Convert(t.Context(), ociImage(t, items), "linux/amd64", s, nil); err != nil {
			t.Fatal(err)
		}
	}
	_, alone, _ := converted(t, ociImage(t, []item{lib}))
	before := s.Added().Chunks
	if _, _, err := Convert(t.Context(), ociImage(t, []item{lib}), "linux/amd64", s, nil); err != nil {
		t.Fatal(err)
	}
	if n := s.Added().Chunks - before; n != 2 { // inodes and tree
		t.Errorf("%d of %d chunks are new, want those of inodes and tree", n, len(alone.Chunks))
	}
}

func TestCut(t *testing.T) {
	const k = 1 << 10
	l := erofs.Layout{Size: 1236 * k, Meta: 68 * k, Files: []erofs.Extent{
		{Off: 68 * k, Size: 60 * k}, {Off: 128 * k, Size: 60 * k}, {Off: 188 * k, Size: 63*k + 1}, {Off: 252 * k, Size: 60 * k},
		{Off: 312 * k, Size: 60 * k}, // does not fit into the run
		{Off: 372 * k, Size: 600*k - 1}, {Off: 972 * k, Size: 4 * k}, {Off: 976 * k, Size: 256 * k}, {Off: 1232 * k, Size: 1},
	}}
	var got []Chunk
	for _, c := range cut(l, 1308*k) {
		got = append(got, Chunk{Off: c.Off / k, Size: c.Size / k})
	}
	want := []Chunk{{Off: 0, Size: 64}, {Off: 64, Size: 4}, {Off: 68, Size: 244}, {Off: 312, Size: 60}, {Off: 372, Size: 256}, {Off: 628, Size: 256},
		{Off: 884, Size: 88}, {Off: 972, Size: 4}, {Off: 976, Size: 256}, {Off: 1232, Size: 4}, {Off: 1236, Size: 64}, {Off: 1300, Size: 8}}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("cut to\n%v, want\n%v", got, want)
	}
}

func TestDecodeManifest(t *testing.T) {
	_, m, _ := converted(t, sample(t))
	good, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := DecodeManifest(good); err != nil || !reflect.DeepEqual(again, m) {
		t.Errorf("decoded: %v", err)
	}
	if again, err := DecodeManifest(bytes.Replace(good, []byte(`"format":4`), []byte(`"format":3`), 1)); err != nil || again.Format != OldestFormat {
		t.Errorf("what a node runs since before its update: %v", err)
	}
	for _, c := range []struct{ name, old, new, field string }{
		{"a newer format", `"format":4`, `"format":5`, "format"},
		{"an older format", `"format":4`, `"format":2`, "format"},
		{"space", `{"format"`, `{ "format"`, "canonical"},
		{"unknown field", `{"format"`, `{"more":1,"format"`, "more"},
		{"absent field", `"format":4,`, ``, "format"},
		{"duplicate", `"format":4,`, `"format":4,"format":4,`, "format"},
		{"case", `"format"`, `"Format"`, "Format"},
		{"float", `"format":4`, `"format":4.0`, "format"},
		{"trailing", `"stopSignal":"SIGTERM"}}`, `"stopSignal":"SIGTERM"}}x`, "trailing"},
		{"null list", `"entrypoint":["/app"]`, `"entrypoint":null`, "entrypoint"},
		{"escape", `"/app"`, `"\u002fapp"`, "canonical"},
		{"root", m.Verity.Root, strings.ToUpper(m.Verity.Root[:63]) + "F", "verity.root"},
		{"tag", m.OCI.Manifest, "latest", "oci.manifest"},
		{"platform", "linux/amd64", "linux/mips", "oci.platform"},
		{"gap", `"off":0,`, `"off":4096,`, "chunks[0].off"},
		{"chunk id", m.Chunks[0].ID, "../../etc/passwd", "chunks[0].id"},
	} {
		b := bytes.Replace(good, []byte(c.old), []byte(c.new), 1)
		if bytes.Equal(b, good) {
			t.Errorf("%s changes nothing", c.name)
		}
		if _, err := DecodeManifest(b); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), c.field) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	change := func(name, field string, f func(m *Manifest)) {
		other := m
		other.Chunks = append([]Chunk(nil), m.Chunks...)
		f(&other)
		if err := other.validate(); !errors.Is(err, ErrManifest) || !strings.Contains(err.Error(), field) {
			t.Errorf("%s: %v", name, err)
		}
	}
	change("empty", "dataSize", func(m *Manifest) { m.DataSize = 0 })
	change("huge", "dataSize", func(m *Manifest) { m.DataSize = 1 << 62 })
	change("odd", "dataSize", func(m *Manifest) { m.DataSize++ })
	change("no tree", "diskSize", func(m *Manifest) { m.DiskSize = m.DataSize })
	change("tree elsewhere", "hashStart", func(m *Manifest) { m.Verity.HashStart++ })
	change("chunk too large", "chunks[0].size", func(m *Manifest) { m.Chunks[0].Size = 2 * MaxChunk })
	change("chunk negative", "chunks[0].size", func(m *Manifest) { m.Chunks[0].Size = -4096 })
	change("last chunk gone", "chunks", func(m *Manifest) { m.Chunks = m.Chunks[:len(m.Chunks)-1] })
	change("data and tree in one", "size", func(m *Manifest) {
		last := &m.Chunks[len(m.Chunks)-2]
		last.Size += 4096
	})
}

func FuzzDecodeManifest(f *testing.F) {
	_, m, _ := converted(f, ociImage(f, []item{file("a", noise(5000, 1))}))
	good, err := m.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte(`{}`))
	f.Add(bytes.Replace(good, []byte("4096"), []byte("-1"), 1))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := DecodeManifest(b)
		if err != nil {
			return
		}
		again, err := m.Encode()
		if err != nil || !bytes.Equal(again, b) {
			t.Errorf("accepted what it would not write: %v", err)
		}
		var sum int64
		for _, c := range m.Chunks {
			sum += c.Size
		}
		if sum != m.DiskSize || m.DiskSize <= m.DataSize && m.DataSize > 4096 {
			t.Errorf("chunks of %d bytes for a disk of %d", sum, m.DiskSize)
		}
	})
}

// TestWindow: a zstd layer may ask for 32 MiB and no more.
func TestWindow(t *testing.T) {
	for _, c := range []struct {
		size int
		ok   bool
	}{{32 << 20, true}, {64 << 20, false}} {
		plain := tarOf(t, []item{file("a", noise(2<<20, 1))})
		var b bytes.Buffer
		z, err := zstd.NewWriter(&b, zstd.WithWindowSize(c.size), zstd.WithEncoderLevel(zstd.SpeedFastest))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := z.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		m := ociImageOf(t, nil, plain)
		alter(t, m, func(man map[string]any) { man["layers"] = []any{m.put(b.Bytes())} })
		_, err = Converter{Temp: t.TempDir()}.Convert(t.Context(), m, "linux/amd64")
		if (err == nil) != c.ok || !c.ok && (!errors.Is(err, ErrSource) || !strings.Contains(err.Error(), "more than 32 MiB")) {
			t.Errorf("%d MiB: %v", c.size>>20, err)
		}
	}
}
