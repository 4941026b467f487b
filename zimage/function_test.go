// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"

	"github.com/zos-node/zos/zimage/flat"
)

// childEnv tells a copy of this test program what to do instead of testing.
const childEnv = "ZOS_ZIMAGE_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		os.Exit(child(task))
	}
	os.Exit(m.Run())
}

// child converts an image and says what came out and what memory it took.
func child(task string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if task == "verify" {
		if err := verifyReadOnly(os.Getenv("STORE"), os.Getenv("ID")); err != nil {
			return fail(err)
		}
		return 0
	}
	syscall.Umask(map[string]int{"umask": 0o077}[task])
	s := stream(crowd)
	if task != "crowd" {
		s = stream(func(w *tar.Writer) error {
			for i := range 300 {
				b := noise(i*997, byte(i))
				h := file(fmt.Sprintf("d%d/f%d", i%7, i), b).with(func(h *tar.Header) { h.ModTime = time.Unix(int64(i), 500).In(time.Local) })
				if err := errors.Join(w.WriteHeader(&h.Header), second(w.Write(b))); err != nil {
					return err
				}
			}
			return nil
		})
	}
	src, err := s.source()
	if err != nil {
		return fail(err)
	}
	dir := os.Getenv("TMPDIR")
	r, err := Converter{Temp: dir}.Convert(context.Background(), src, "linux/amd64")
	if err != nil {
		return fail(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return fail(err)
	}
	peak := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(status)
	if peak == nil {
		return fail(errors.New("no VmHWM"))
	}
	fmt.Println(r.ID, string(peak[1]), time.Now().Format("-07:00"))
	return 0
}

func second[T any](_ T, err error) error { return err }

// stream writes a layer, the same one each time.
type stream func(w *tar.Writer) error

// crowd is a directory of 100,000 files and a file of 300 MiB.
func crowd(w *tar.Writer) error {
	for i := range 100_000 {
		h := file(fmt.Sprintf("usr/share/crowd/file-%06d", i), nil)
		if err := w.WriteHeader(&h.Header); err != nil {
			return err
		}
	}
	big := tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o644, Size: 300 << 20}
	if err := w.WriteHeader(&big); err != nil {
		return err
	}
	b := noise(1<<20, 1)
	for range 300 {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// generated is an image with one layer, which lies nowhere.
type generated struct {
	*memory
	layer  stream
	digest string
}

func (s stream) open() io.ReadCloser {
	r, w := io.Pipe()
	go func() {
		t := tar.NewWriter(w)
		w.CloseWithError(errors.Join(s(t), t.Close())) // always nil
	}()
	return r
}

func (s stream) source() (*generated, error) {
	h := sha256.New()
	r := s.open()
	n, err := io.Copy(h, r)
	if err != nil {
		return nil, err
	}
	digest := "sha256:" + hex.EncodeToString(h.Sum(nil))
	m := &memory{blobs: map[string][]byte{}}
	cfg := m.put([]byte(`{"architecture":"amd64","os":"linux","rootfs":{"diff_ids":["` + digest + `"]}}`))
	m.manifest = fmt.Appendf(nil, `{"config":{"digest":%q,"size":%d},"layers":[{"digest":%q,"size":%d}]}`, cfg["digest"], cfg["size"], digest, n)
	return &generated{m, s, digest}, r.Close()
}

func (g *generated) Blob(ctx context.Context, digest string) (io.ReadCloser, error) {
	if digest == g.digest {
		return g.layer.open(), nil
	}
	return g.memory.Blob(ctx, digest)
}

// inChild runs a conversion in a process of its own.
func inChild(t *testing.T, task string, env ...string) (id string, peakKiB int, zone string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, childEnv+"="+task, "TMPDIR="+t.TempDir())...)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v", task, err)
	}
	words := strings.Fields(string(out))
	if len(words) != 3 {
		t.Fatalf("%s says %q", task, out)
	}
	if peakKiB, err = strconv.Atoi(words[1]); err != nil {
		t.Fatal(err)
	}
	return words[0], peakKiB, words[2]
}

// TestSameEverywhere: what a machine is like does not show in the image.
func TestSameEverywhere(t *testing.T) {
	want, _, zone := inChild(t, "plain", "TZ=UTC")
	if zone != "+00:00" {
		t.Fatalf("zone %s", zone)
	}
	for _, c := range []struct {
		task string
		env  []string
		zone string
	}{
		{"one processor", []string{"GOMAXPROCS=1", "TZ=UTC"}, "+00:00"},
		{"many processors", []string{"GOMAXPROCS=16", "TZ=UTC"}, "+00:00"},
		{"time zone", []string{"TZ=" + zoneFile(t, 9*3600)}, "+09:00"},
		{"locale", []string{"LC_ALL=tr_TR.UTF-8", "LANG=de_DE", "TZ=UTC"}, "+00:00"},
		{"umask", []string{"TZ=UTC"}, "+00:00"},
		{"memory is short", []string{"GOMEMLIMIT=10MiB", "GOGC=5", "TZ=UTC"}, "+00:00"},
	} {
		got, _, zone := inChild(t, c.task, c.env...)
		if got != want {
			t.Errorf("%s: %s, want %s", c.task, got, want)
		}
		if zone != c.zone {
			t.Errorf("%s: the zone is %s", c.task, zone)
		}
	}
}

// zoneFile is a zone that Go knows wherever it runs, as TZif of RFC 9636 has
// it: one kind of local time, and no change of it ever.
func zoneFile(t *testing.T, east int) string {
	t.Helper()
	b := append([]byte("TZif"), make([]byte, 32)...) // version 1, and no leap seconds or changes
	b = binary.BigEndian.AppendUint32(b, 1)          // kinds
	b = binary.BigEndian.AppendUint32(b, 4)          // bytes of names
	b = binary.BigEndian.AppendUint32(b, uint32(east))
	b = append(b, 0, 0)
	b = append(b, "XXX\x00"...)
	name := filepath.Join(t.TempDir(), "zone")
	put(t, name, b)
	return name
}

// TestMemoryDoesNotGrowWithSize: the limit of 256 MiB is for five times as
// many files (TestConvertMemory of cmd/zos); contents cost nothing.
func TestMemoryDoesNotGrowWithSize(t *testing.T) {
	_, peak, _ := inChild(t, "crowd")
	t.Logf("100,000 files in one directory and 300 MiB in another: %d MiB", peak>>10)
	if peak > 128<<10 {
		t.Errorf("took %d MiB of memory, want 128 at most", peak>>10)
	}
}

// TestOrderOfLayers: layers that add up to the same tree give the same root.
func TestOrderOfLayers(t *testing.T) {
	a := []item{folder("a"), file("a/x", noise(70000, 1)), file("both", []byte("same"))}
	b := []item{folder("b"), file("b/y", noise(5000, 2)), file("both", []byte("same"))}
	var whole []item
	whole = append(append(whole, b...), a...)
	var roots []string
	for _, layers := range [][][]item{{a, b}, {b, a}, {whole}, {a, b, a}} {
		_, m, _ := converted(t, ociImage(t, layers...))
		roots = append(roots, m.Verity.Root)
	}
	for _, r := range roots {
		if r != roots[0] {
			t.Errorf("roots differ: %v", roots)
		}
	}
}

// TestBombs: little that unpacks to much is refused, before much was written.
func TestBombs(t *testing.T) {
	const big = freeBytes + 64<<20
	zeros := func(w io.Writer, size int64) error {
		b := make([]byte, 1<<20)
		for left := size; left > 0; left -= int64(len(b)) {
			if _, err := w.Write(b[:min(left, int64(len(b)))]); err != nil {
				return err
			}
		}
		return nil
	}
	layer := stream(func(w *tar.Writer) error {
		return errors.Join(w.WriteHeader(&tar.Header{Name: "a", Typeflag: tar.TypeReg, Size: big}), zeros(w, big))
	})
	for _, c := range []struct {
		name string
		make func(t *testing.T) []byte
		want error
	}{
		{"zstd", func(t *testing.T) []byte {
			var b bytes.Buffer
			z, err := zstd.NewWriter(&b)
			if err != nil {
				t.Fatal(err)
			}
			r := layer.open()
			if _, err := io.Copy(z, r); err != nil {
				t.Fatal(err)
			}
			if err := errors.Join(z.Close(), r.Close()); err != nil {
				t.Fatal(err)
			}
			return b.Bytes()
		}, ErrSource},
		{"sparse", func(*testing.T) []byte {
			return join(pax("GNU.sparse.size", fmt.Sprint(int64(big)), "GNU.sparse.numblocks", "1", "GNU.sparse.map", "0,512", "GNU.sparse.name", "a"),
				block{name: "a", mode: "644", kind: '0', magic: ustar, size: octal(512)}.bytes(), make([]byte, 512+1024))
		}, flat.ErrLimit},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := c.make(t)
			m := &memory{blobs: map[string][]byte{}}
			// The diff id is not right either; that is found later.
			cfg := mustJSON(t, map[string]any{"architecture": "amd64", "os": "linux", "rootfs": map[string]any{"diff_ids": []string{digestOf(b)}}})
			m.manifest = mustJSON(t, map[string]any{"config": m.put(cfg), "layers": []any{m.put(b)}})
			dir := t.TempDir()
			_, err := Converter{Temp: dir}.Convert(t.Context(), m, "linux/amd64")
			if !errors.Is(err, c.want) {
				t.Errorf("%d bytes that unpack to %d: %v", len(b), int64(big), err)
			}
		})
	}
}

// TestDropped: neither device nodes nor attributes that EROFS has no place for
// are in the image, and the result says so.
func TestDropped(t *testing.T) {
	with := func(kv ...string) func(*tar.Header) {
		return func(h *tar.Header) {
			h.PAXRecords = map[string]string{}
			for i := 0; i < len(kv); i += 2 {
				h.PAXRecords[kv[i]] = kv[i+1]
			}
		}
	}
	r, err := Converter{Store: openTestStore(t)}.Convert(t.Context(), ociImage(t, []item{
		file("a", nil).with(with("SCHILY.xattr.system.nfs4_acl", "x", "SCHILY.xattr.user.kept", "x", "LIBARCHIVE.xattr.user.kept", "eA==", "comment", "x")),
		{tar.Header{Name: "dev/null", Typeflag: tar.TypeChar, Devmajor: 1, Devminor: 3}, nil},
		file("b", nil).with(with("SCHILY.xattr.system.nfs4_acl", "y", "SCHILY.acl.access", "user::rw-")),
		{tar.Header{Name: "./dev/sda", Typeflag: tar.TypeBlock, Devmajor: 8}, nil},
		link("dev/boot", "dev/sda"),
		file("c", nil).with(with("SCHILY.xattr.system.posix_acl_access", "no ACL", "LIBARCHIVE.xattr.com.apple.x", "eA==")),
	}), "linux/amd64")
	if err != nil {
		t.Fatal(err)
	}
	want := []flat.Dropped{
		{Name: "a", Kind: "attribute", Attribute: "SCHILY.xattr.system.nfs4_acl", Files: 2},
		{Name: "dev/null", Kind: "char", Major: 1, Minor: 3},
		{Name: "b", Kind: "attribute", Attribute: "SCHILY.acl.access", Files: 1},
		{Name: "./dev/sda", Kind: "block", Major: 8},
		{Name: "dev/boot", Kind: "block", Major: 8},
		{Name: "c", Kind: "attribute", Attribute: "LIBARCHIVE.xattr.com.apple.x", Files: 1},
		{Name: "c", Kind: "attribute", Attribute: "SCHILY.xattr.system.posix_acl_access", Files: 1},
	}
	if !slices.Equal(r.Dropped, want) {
		t.Errorf("dropped\n%+v, want\n%+v", r.Dropped, want)
	}
}

// TestDeriveLeavesNothing: without a store the id is the same, and no file
// stays.
func TestDeriveLeavesNothing(t *testing.T) {
	_, m, id := converted(t, sample(t))
	dir := t.TempDir()
	r, err := Converter{Temp: dir}.Convert(t.Context(), sample(t), "linux/amd64")
	if err != nil || r.ID != id || r.Manifest.Verity != m.Verity {
		t.Errorf("derived %s %v, want %s", r.ID, err, id)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*")); err != nil || len(left) > 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

// TestLargerThan4GiBThroughTheWholeConversion: a file of more bytes than 32
// bits count, from the layer to the chunks, the hash tree and what verify reads.
func TestLargerThan4GiBThroughTheWholeConversion(t *testing.T) {
	if os.Getenv("ZOS_LIMITS") == "" {
		t.Skip("SKIP TestLargerThan4GiBThroughTheWholeConversion: it takes minutes and 4 GiB of disk (ZOS_LIMITS=all, make test-image)")
	}
	const size = 4<<30 + 12345
	last := []byte("the last bytes")
	src, err := stream(func(w *tar.Writer) error {
		if err := w.WriteHeader(&tar.Header{Name: "big", Typeflag: tar.TypeReg, Mode: 0o640, Size: size, Format: tar.FormatPAX}); err != nil {
			return err
		}
		zeros := make([]byte, 1<<20)
		for left := int64(size - len(last)); left > 0; left -= int64(len(zeros)) {
			if _, err := w.Write(zeros[:min(left, int64(len(zeros)))]); err != nil {
				return err
			}
		}
		_, err := w.Write(last)
		return errors.Join(err, w.WriteHeader(&tar.Header{Name: "small", Typeflag: tar.TypeReg, Mode: 0o600}))
	}).source()
	if err != nil {
		t.Fatal(err)
	}
	s := openTestStore(t)
	m, id, err := Convert(t.Context(), src, "linux/amd64", s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := s.Verify(t.Context(), id, nil); err != nil || again.Verity != m.Verity {
		t.Errorf("verify: %v", err)
	}
	// The file is whole blocks at the end of the data.
	at := m.DataSize - (size+4095)/4096*4096 + size - int64(len(last))
	if m.DataSize < size {
		t.Fatalf("%d bytes of data", m.DataSize)
	}
	var got []byte
	for _, c := range m.Chunks {
		if c.Off+c.Size <= at || c.Off >= at+int64(len(last)) {
			continue
		}
		b, err := s.Chunk(c)
		if err != nil {
			t.Fatal(err)
		}
		from := max(at-c.Off, 0)
		got = append(got, b[from:min(from+int64(len(last)-len(got)), c.Size)]...)
	}
	if !bytes.Equal(got, last) {
		t.Errorf("it ends with %q", got)
	}
	if n, _ := Unique(m); n > 20_000 {
		t.Errorf("%d different chunks", n)
	}
}
