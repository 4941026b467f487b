// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"golang.org/x/sys/unix"
)

func TestEveryByteCounts(t *testing.T) {
	s, m, id := converted(t, ociImage(t, []item{file("a", noise(9000, 1)), file("b", noise(70000, 2))}))
	path := filepath.Join(t.TempDir(), "disk")
	f, _ := fetcher(serveStore(t, s, nil).URL)
	if _, err := f.Image(t.Context(), m, id, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	for off := int64(0); off < m.DiskSize; off += 1009 {
		flip(t, path, off)
		if err := VerifyImage(path, m); !errors.Is(err, ErrMismatch) {
			t.Errorf("byte %d altered: %v", off, err)
		}
		flip(t, path, off)
	}
	if err := VerifyImage(path, m); err != nil {
		t.Error(err)
	}
	// In transit, a byte may be altered without effect, but never with one.
	c := m.Chunks[0]
	wire, err := s.read(chunkName(c.ID), maxWire)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := s.codec.unpack(wire, c)
	if err != nil {
		t.Fatal(err)
	}
	for i := range wire {
		wire[i] ^= 0x55
		if got, err := s.codec.unpack(wire, c); err == nil && !bytes.Equal(got, plain) {
			t.Errorf("byte %d of the wire form altered: accepted other bytes", i)
		}
		wire[i] ^= 0x55
	}
}

// TestVerityRootIsHeldAgainstData: chunks that are all right by their hashes,
// under a manifest whose root is not theirs.
func TestVerityRootIsHeldAgainstData(t *testing.T) {
	s, m, _ := converted(t, sample(t))
	path := filepath.Join(t.TempDir(), "disk")
	put(t, path, assemble(t, s, m))
	other := m
	other.Verity.Root = strings.Repeat("0", 64)
	if err := VerifyImage(path, other); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "verity root") {
		t.Errorf("another root: %v", err)
	}
	// A tree that is not the data's, and chunks that agree with that tree.
	disk := assemble(t, s, m)
	disk[m.DataSize] ^= 1
	put(t, path, disk)
	other = m
	other.Chunks = append([]Chunk(nil), m.Chunks...)
	for i, c := range other.Chunks {
		other.Chunks[i].ID = strings.TrimPrefix(digestOf(disk[c.Off:][:c.Size]), "sha256:")
	}
	if err := VerifyImage(path, other); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "hash tree") {
		t.Errorf("another tree: %v", err)
	}
}

// TestTreeChunksAreHeldAgainstData: a manifest with the right root, one of whose
// chunks behind the data is right by its hash and yet not the data's tree. A guest
// would read it and panic.
func TestTreeChunksAreHeldAgainstData(t *testing.T) {
	s, m, id := converted(t, sample(t))
	last := len(m.Chunks) - 1
	tree, err := s.Chunk(m.Chunks[last])
	if err != nil || m.Chunks[last].Off < m.DataSize {
		t.Fatalf("the last chunk, at %d, is not of the tree: %v", m.Chunks[last].Off, err)
	}
	tree[len(tree)/2] ^= 1
	other := m
	other.Chunks = slices.Clone(m.Chunks)
	if other.Chunks[last].ID, err = s.putChunk(tree); err != nil {
		t.Fatal(err)
	}
	forged, err := s.putManifest(other)
	if err != nil || forged == id {
		t.Fatal(forged, err)
	}
	f, _ := fetcher(serveStore(t, s, nil).URL)
	exported := func(export func(context.Context, string, *os.File, func(int64, int64)) (Manifest, error)) func(context.Context, string, func(int64, int64)) (Manifest, error) {
		return func(ctx context.Context, id string, progress func(int64, int64)) (Manifest, error) {
			to, err := os.Create(filepath.Join(t.TempDir(), "disk"))
			if err != nil {
				t.Fatal(err)
			}
			defer to.Close() // a test's file
			return export(ctx, id, to, progress)
		}
	}
	for name, verify := range map[string]func(context.Context, string, func(int64, int64)) (Manifest, error){
		"store": s.Verify, "mirror": f.Verify, "store, exported": exported(s.Export), "mirror, exported": exported(f.Export)} {
		if _, err := verify(t.Context(), forged, nil); !errors.Is(err, ErrMismatch) || !strings.Contains(err.Error(), "hash tree") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := verify(t.Context(), id, nil); err != nil {
			t.Errorf("%s, the right one: %v", name, err)
		}
	}
}

// TestVerifyReadsOnly: whoever may only read a store can verify what is in it.
// The copy of this program that does it has the store mounted read-only.
func TestVerifyReadsOnly(t *testing.T) {
	const skip = "SKIP TestVerifyReadsOnly: "
	if os.Geteuid() != 0 {
		t.Skip(skip + "mounting needs root")
	}
	s, m, id := converted(t, sample(t))
	put(t, filepath.Join(s.Dir(), "tmp", "work-old"), nil)
	old := time.Now().Add(-2 * staleAfter)
	if err := os.Chtimes(filepath.Join(s.Dir(), "tmp", "work-old"), old, old); err != nil {
		t.Fatal(err)
	}
	verify := func() (string, error) {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"=verify", "STORE="+s.Dir(), "ID="+id, "TMPDIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	out, err := verify()
	if strings.Contains(out, noMount) {
		t.Skip(skip + out)
	}
	if err != nil || !strings.Contains(out, "read-only file system") || !strings.Contains(out, "verified "+m.Verity.Root) {
		t.Errorf("%v: %s", err, out)
	}
	flip(t, filepath.Join(s.Dir(), filepath.FromSlash(chunkName(m.Chunks[0].ID))), 30)
	if out, err := verify(); err == nil || !strings.Contains(out, ErrMismatch.Error()) {
		t.Errorf("altered: %v: %s", err, out)
	}
}

// noMount is what a child says that may not mount.
const noMount = "cannot mount"

// verifyReadOnly is what the child of TestVerifyReadsOnly does.
func verifyReadOnly(dir, id string) error {
	if err := errors.Join(unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""), unix.Mount(dir, dir, "", unix.MS_BIND, ""),
		unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")); err != nil {
		return fmt.Errorf("%s: %w", noMount, err)
	}
	fmt.Println(os.WriteFile(filepath.Join(dir, "tmp", "x"), nil, 0o600)) // that it is read-only
	s, err := ReadStore(dir)
	if err != nil {
		return err
	}
	m, err := s.Verify(context.Background(), id, nil)
	if err == nil {
		fmt.Println("verified", m.Verity.Root)
	}
	return err
}

func TestWireFormIsBounded(t *testing.T) {
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	if n := len(c.pack(noise(MaxChunk, 1))); n > maxWire {
		t.Errorf("noise packs to %d bytes, limit %d", n, maxWire)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedBestCompression))
	if err != nil {
		t.Fatal(err)
	}
	b := noise(MaxChunk, 2)
	want := Chunk{ID: strings.TrimPrefix(digestOf(b), "sha256:"), Size: MaxChunk}
	if _, err := c.unpack(enc.EncodeAll(b, nil), want); err != nil {
		t.Errorf("another mirror's compressor: %v", err)
	}
}

func flip(t *testing.T, path string, off int64) {
	t.Helper()
	if err := os.Chmod(path, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1)
	_, err = f.ReadAt(b, off)
	b[0] ^= 1
	_, err2 := f.WriteAt(b, off)
	if err := errors.Join(err, err2, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
}

func truncate(t *testing.T, path string, n int64) {
	t.Helper()
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
}
