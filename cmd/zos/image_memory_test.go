// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// memoryChild names the image that a copy of this test program converts
// instead of testing.
const memoryChild = "ZOS_TEST_CONVERT"

// packer is how a layer is packed.
type packer func(io.Writer) (io.WriteCloser, error)

// layerFile writes one layer into a layout while it is made: at the limits it
// is too large to be held.
func layerFile(t *testing.T, dir string, pack packer, write func(*tar.Writer) error) (desc map[string]any, diffID string) {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "layer"))
	if err != nil {
		t.Fatal(err)
	}
	wire, plain := sha256.New(), sha256.New()
	z, err := pack(io.MultiWriter(f, wire))
	if err != nil {
		t.Fatal(err)
	}
	w := tar.NewWriter(io.MultiWriter(z, plain))
	if err := errors.Join(write(w), w.Close(), z.Close()); err != nil {
		t.Fatal(err)
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	h := hex.EncodeToString(wire.Sum(nil))
	if err := os.Rename(f.Name(), filepath.Join(dir, "blobs", "sha256", h)); err != nil {
		t.Fatal(err)
	}
	return map[string]any{"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": "sha256:" + h, "size": info.Size()}, "sha256:" + hex.EncodeToString(plain.Sum(nil))
}

// layerLayout is an OCI layout of one image with these layers.
func layerLayout(t *testing.T, pack packer, layers ...func(*tar.Writer) error) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	blob := func(mediaType string, v any) map[string]any {
		b, err := json.Marshal(v)
		if err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		if err := os.WriteFile(filepath.Join(dir, "blobs", "sha256", hex.EncodeToString(sum[:])), b, 0o600); err != nil {
			t.Fatal(err)
		}
		return map[string]any{"mediaType": mediaType, "digest": "sha256:" + hex.EncodeToString(sum[:]), "size": len(b)}
	}
	var descs []any
	var diffIDs []string
	for _, write := range layers {
		layer, diffID := layerFile(t, dir, pack, write)
		descs, diffIDs = append(descs, layer), append(diffIDs, diffID)
	}
	config := blob("application/vnd.oci.image.config.v1+json", map[string]any{"architecture": "amd64", "os": "linux",
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	manifest := blob("application/vnd.oci.image.manifest.v1+json", map[string]any{"schemaVersion": 2,
		"mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": descs})
	index, err := json.Marshal(map[string]any{"schemaVersion": 2, "manifests": []any{manifest}})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "index.json"), index, 0o600),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o600)); err != nil {
		t.Fatal(err)
	}
	return "oci:" + dir
}

// peakOf converts in a process of its own, as zos image convert does, and
// gives its largest resident size and what it printed.
func peakOf(t *testing.T, ref string) (mib int, said string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConvertMemory$")
	cmd.Env = append(os.Environ(), memoryChild+"="+ref, "TMPDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("it says %s", out)
	}
	kib, err := strconv.Atoi(string(m[1]))
	if err != nil {
		t.Fatal(err)
	}
	return (kib + 1023) >> 10, string(out)
}

// memoryTask is what the child does: the whole command.
func memoryTask(t *testing.T, ref string) {
	t.Helper()
	var said tally
	args := []string{"image", "convert", ref, "--store", filepath.Join(t.TempDir(), "store")}
	if ref, ok := strings.CutSuffix(ref, memoryJSON); ok {
		args[2] = ref
		args = append(args, "--json")
	}
	code := run(t.Context(), args, &said, os.Stderr)
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(regexp.MustCompile(`VmHWM:.*`).FindString(string(status)))
	fmt.Printf("exit %d, %d not read, %d bytes\n", code, said.unread, said.bytes)
}

// memoryJSON at the end of a reference has the child write JSON.
const memoryJSON = " --json"

// tally takes what a command writes, and keeps nothing of it.
type tally struct{ bytes, unread int }

func (c *tally) Write(b []byte) (int, error) {
	c.bytes += len(b)
	c.unread += bytes.Count(b, []byte("not read  "))
	return len(b), nil
}

// limitsEnv has the tests at the limits run too, which take minutes.
const limitsEnv = "ZOS_LIMITS"

// TestConvertMemory: at each limit, a conversion takes no more than
// convertMemory, with everything that is resident of the program itself.
func TestConvertMemory(t *testing.T) {
	if ref := os.Getenv(memoryChild); ref != "" {
		memoryTask(t, ref)
		return
	}
	plain := func(w io.Writer) (io.WriteCloser, error) { return keepOpen{w}, nil }
	gz := func(w io.Writer) (io.WriteCloser, error) { return gzip.NewWriterLevel(w, gzip.BestSpeed) }
	widest := func(w io.Writer) (io.WriteCloser, error) { // the largest window that is accepted
		return zstd.NewWriter(w, zstd.WithWindowSize(32<<20), zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1))
	}
	for _, c := range []struct {
		name   string
		limit  bool
		says   string
		pack   packer
		layers []func(*tar.Writer) error
	}{
		{"a lock file of 60 MB", false, "exit 0, 1 not read", plain, []func(*tar.Writer) error{lockFile(60 << 20)}},
		{"files, as many as are allowed, gzip", true, "exit 0, 0", gz, []func(*tar.Writer) error{crowd(0, 520_000)}},
		{"files in two layers, zstd of a wide window", true, "exit 0, 0", widest, []func(*tar.Writer) error{crowd(0, 260_000), crowd(260_000, 520_000)}},
		{"folders with attributes, and their files", true, "exit 0, 0", gz, []func(*tar.Writer) error{folders(170_000)}},
		{"device nodes, as many as are allowed", true, "exit 0, 0", gz, []func(*tar.Writer) error{devices(38_127, strings.Repeat("n", 90))}},
		{"device nodes of names that JSON makes six times as long", true, "exit 0, 0", gz, []func(*tar.Writer) error{devices(1_273, strings.Repeat("\x01", 244), slices.Repeat([]string{strings.Repeat("\x01", 250)}, 15)...)}},
		{"device nodes, and files", true, "exit 0, 0", gz, []func(*tar.Writer) error{devices(19_065, strings.Repeat("n", 90)), crowd(0, 330_000)}},
		{"device nodes, more than are allowed", true, "exit 3, 0", gz, []func(*tar.Writer) error{devices(520_000, strings.Repeat("n", 90))}},
		{"device nodes with records that nobody keeps", true, "exit 0, 0", gz, []func(*tar.Writer) error{recorded(300, 900<<10)}},
		{"files, and as many packages as fit a document", true, "exit 0, 0", gz, []func(*tar.Writer) error{packages(49_000), crowd(0, 510_000)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.limit && os.Getenv(limitsEnv) == "" {
				t.Skipf("SKIP TestConvertMemory/%s: it takes a minute (%s=all, make test-image)", c.name, limitsEnv)
			}
			ref := layerLayout(t, c.pack, c.layers...)
			for _, form := range []string{"", memoryJSON} {
				mib, said := peakOf(t, ref+form)
				t.Logf("MEMORY %s%s: %d MiB resident at most", c.name, form, mib)
				if form == "" && !strings.Contains(said, c.says) {
					t.Errorf("it says %s, want %q", said, c.says)
				}
				if mib > convertMemory>>20 {
					t.Errorf("%s took %d MiB, want %d at most", form, mib, convertMemory>>20)
				}
				if !strings.Contains(c.name, "device") {
					break // the list is what JSON makes larger
				}
			}
		})
	}
}

// crowd is files with names of 99 bytes.
func crowd(from, to int) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		for i := from; i < to; i++ {
			if err := entry(w, &tar.Header{Name: fmt.Sprintf("%03d/%095d", i%500, i), Typeflag: tar.TypeReg, Mode: 0o644}, fmt.Sprintf("%060d", i)); err != nil {
				return err
			}
		}
		return nil
	}
}

// devices are device nodes in a folder, with a number before their name.
func devices(n int, name string, in ...string) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		for i := range n {
			if err := entry(w, &tar.Header{Name: path.Join(path.Join(in...), fmt.Sprintf("%06d%s", i, name)), Typeflag: tar.TypeChar, Mode: 0o600, Devmajor: 1, Devminor: int64(i)}, ""); err != nil {
				return err
			}
		}
		return nil
	}
}

// recorded are device nodes, each with a comment, beside which their name stands.
func recorded(n, comment int) func(*tar.Writer) error {
	records := map[string]string{"comment": strings.Repeat("c", comment)}
	return func(w *tar.Writer) error {
		for i := range n {
			if err := entry(w, &tar.Header{Name: fmt.Sprintf("%0200d", i), Typeflag: tar.TypeChar, PAXRecords: records}, ""); err != nil {
				return err
			}
		}
		return nil
	}
}

// folders each have an ACL, a label, and a file with the same.
func folders(n int) func(*tar.Writer) error {
	return func(w *tar.Writer) error {
		records := map[string]string{
			"SCHILY.xattr.security.selinux":        "system_u:object_r:container_file_t:s0\x00",
			"SCHILY.xattr.system.posix_acl_access": "\x02\x00\x00\x00\x01\x00\x06\x00\xff\xff\xff\xff",
		}
		for i := range n {
			if err := errors.Join(
				entry(w, &tar.Header{Name: fmt.Sprintf("%03d/%06d", i%500, i), Typeflag: tar.TypeDir, Mode: 0o755, PAXRecords: records}, ""),
				entry(w, &tar.Header{Name: fmt.Sprintf("%03d/%06d/f", i%500, i), Typeflag: tar.TypeReg, Mode: 0o644, PAXRecords: records}, "content"),
			); err != nil {
				return err
			}
		}
		return nil
	}
}

// packages is dpkg's database.
func packages(n int) func(*tar.Writer) error {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, "Package: package-of-a-long-name-%06d\nStatus: install ok installed\nVersion: 1:2.36.%d-9+deb12u1\nArchitecture: amd64\nDescription: what it is\n for\n\n", i, i)
	}
	return func(w *tar.Writer) error {
		return entry(w, &tar.Header{Name: "var/lib/dpkg/status", Typeflag: tar.TypeReg, Mode: 0o644}, b.String())
	}
}

// lockFile is npm's, of so many bytes.
func lockFile(size int) func(*tar.Writer) error {
	var b strings.Builder
	b.WriteString(`{"lockfileVersion":3,"packages":{`)
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, `"node_modules/a%07d":{"version":"1.%d.0"},`, i, i)
	}
	b.WriteString(`"node_modules/z":{"version":"1"}}}`)
	return func(w *tar.Writer) error {
		return entry(w, &tar.Header{Name: "app/package-lock.json", Typeflag: tar.TypeReg, Mode: 0o644}, b.String())
	}
}

func entry(w *tar.Writer, h *tar.Header, body string) error {
	h.Size = int64(len(body))
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.WriteString(w, body)
	return err
}

type keepOpen struct{ io.Writer }

func (keepOpen) Close() error { return nil }
