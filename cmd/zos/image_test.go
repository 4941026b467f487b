// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zos-node/zos/zimage"
)

// smallLayout is an OCI layout with one small image.
func smallLayout(t *testing.T, text string) string { return layoutOf(t, text, "/a") }

// layoutOf is one whose process is given.
func layoutOf(t *testing.T, text, process string) string {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	if err := w.WriteHeader(&tar.Header{Name: "a", Mode: 0o644, Size: int64(len(text))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, static.NewLayer(b.Bytes(), types.OCIUncompressedLayer))
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Config = "linux", "amd64", v1.Config{Cmd: []string{process}}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := layout.Write(dir, empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := l.AppendImage(img); err != nil {
		t.Fatal(err)
	}
	return dir
}

// imageRun runs a command and gives its exit code and output.
func imageRun(t *testing.T, args ...string) (code int, out, errs string) {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code = run(t.Context(), args, &stdout, &stderr)
	return code, stdout.String(), stderr.String()
}

func TestImageCommands(t *testing.T) {
	ref, other, store := "oci:"+smallLayout(t, "content"), "oci:"+smallLayout(t, "other"), filepath.Join(t.TempDir(), "store")
	process := "oci:" + layoutOf(t, "content", "/b")
	code, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil || r.New.Chunks != int64(r.Chunks) || r.Chunks == 0 {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	s, err := zimage.OpenStore(store)
	if err != nil {
		t.Fatal(err)
	}
	m, err := s.Manifest(r.ID)
	if err != nil || m.Verity.Root != r.VerityRoot {
		t.Fatalf("the store has %+v, %v", m, err)
	}
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, []byte("kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	zeros := "sha256:" + strings.Repeat("0", 64)
	empty, junk := t.TempDir(), filepath.Join(t.TempDir(), "junk")
	if err := os.WriteFile(junk, bytes.Repeat([]byte("junk"), 999), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"convert " + ref + " --store " + store, exitOK, "new 0"},
		{"convert nginx:latest --store " + store, exitRefused, "is a tag"},
		{"convert oci:" + empty + " --store " + store, exitNotFound, ""},
		{"convert docker-archive:" + junk + " --store " + store, exitRefused, "no tar"},
		{"convert docker-archive:" + junk + "2 --store " + store, exitNotFound, ""},
		{"convert " + ref + " --store " + store + " --platform linux/arm64", exitRefused, "linux/arm64"},
		{"convert " + ref, exitUsage, "--store"},
		{"convert --store " + store, exitUsage, "image reference"},
		{"inspect " + r.ID + " --store " + store, exitOK, r.VerityRoot},
		{"inspect " + ref + " --store " + store, exitOK, r.VerityRoot},
		{"inspect " + ref + " --store " + store + " --with " + r.ID, exitOK, "with " + r.ID},
		{"inspect " + ref + " --store " + store + " --oci " + ref, exitOK, `file         "/a" of layer 0`},
		{"inspect " + ref + " --store " + store + " --oci " + ref + " --json", exitOK, `"path":"/a"`},
		{"inspect " + ref + " --store " + store + " --oci " + other, exitRefused, "not what"},
		{"inspect " + ref + " --store " + store + " --with " + zeros, exitNotFound, ""},
		{"inspect " + other + " --store " + store, exitNotFound, "was not converted"},
		{"inspect " + zeros + " --store " + store, exitNotFound, ""},
		{"inspect " + zeros + " --store " + store + "/none", exitNotFound, ""},
		{"verify " + r.ID + " --store " + store, exitOK, "good"},
		{"verify " + r.ID + " --store " + store + " --oci " + ref, exitOK, "the same id"},
		{"verify " + r.ID + " --store " + store + " --oci " + other, exitRefused, "differ in: OCI manifest, OCI configuration, verity root, chunks, SPDX document\n"},
		{"verify " + r.ID + " --store " + store + " --oci " + process, exitRefused, "differ in: OCI manifest, OCI configuration, process, SPDX document\n"},
		{"verify " + zeros + " --store " + store, exitNotFound, ""},
		{"verify " + r.ID + " --timeout 300ms --store http://127.0.0.1:1", exitUnreachable, ""},
		{"sbom " + r.ID + " --store " + store, exitOK, "SPDX-2.3"},
		{"sbom " + ref + " --store " + store + " --json", exitOK, "SPDX-2.3"},
		{"sbom " + zeros + " --store " + store, exitNotFound, ""},
		{"convert " + ref + " --strict --store " + store, exitOK, r.ID},
		{"blob " + kernel + " --store " + store, exitOK, "sha256:"},
		{"blob " + kernel + ".none --store " + store, exitNotFound, ""},
		{"serve " + store + "/none --listen 127.0.0.1:0", exitNotFound, ""},
	} {
		code, out, errs := imageRun(t, append([]string{"image"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("zos image %s: exit %d, want %d, and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	// Altered in the store: refused, and said so.
	chunk := filepath.Join(store, "chunks", m.Chunks[0].ID[:2], m.Chunks[0].ID+".zst")
	b, err := os.ReadFile(chunk)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(chunk, b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := imageRun(t, "image", "verify", r.ID, "--store", store); code != exitRefused || !strings.Contains(errs, m.Chunks[0].ID) {
		t.Errorf("altered chunk: exit %d: %s", code, errs)
	}
}

// imageLines hands over what a server says first.
type imageLines chan string

func (w imageLines) Write(b []byte) (int, error) {
	w <- string(b)
	return len(b), nil
}

func TestImageServe(t *testing.T) {
	ref, store := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store")
	code, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	ctx, stop := context.WithTimeout(t.Context(), time.Minute)
	defer stop()
	said, done := make(imageLines, 10), make(chan int, 1)
	go func() {
		done <- run(ctx, []string{"image", "serve", store, "--listen", "127.0.0.1:0", "--json"}, said, said)
	}()
	var where struct{ URL string }
	if line := <-said; json.Unmarshal([]byte(line), &where) != nil || where.URL == "" {
		t.Fatalf("serve says %q", line)
	}
	if code, out, errs := imageRun(t, "image", "verify", r.ID, "--store", where.URL); code != exitOK {
		t.Errorf("verify at the mirror: %d %s %s", code, out, errs)
	}
	if code, out, errs := imageRun(t, "image", "inspect", ref, "--store", where.URL); code != exitOK || !strings.Contains(out, r.VerityRoot) {
		t.Errorf("inspect at the mirror: %d %s %s", code, out, errs)
	}
	stop()
	if code := <-done; code != exitOK && code != exitInterrupted {
		t.Errorf("serve ended with %d", code)
	}
}

func TestPace(t *testing.T) {
	for _, c := range []struct {
		done, total int64
		took        time.Duration
		want        string
	}{
		{0, 100, 0, "  0 %  x"},
		{50 << 20, 100 << 20, 500 * time.Millisecond, " 50 %  x"},
		{50 << 20, 200 << 20, 2 * time.Second, " 25 %  25.0 MiB/s  6s left  x"},
		{0, 0, time.Minute, "  0 %  x"},
	} {
		if got := pace("x", c.done, c.total, c.took); got != c.want {
			t.Errorf("%d of %d after %v: %q, want %q", c.done, c.total, c.took, got, c.want)
		}
	}
}

// TestReadingLeavesAStoreAsItIs: the folder for temporary files is no part of
// what others copy, and who only reads makes none.
func TestReadingLeavesAStoreAsItIs(t *testing.T) {
	ref, store := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store")
	code, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	if err := os.Remove(filepath.Join(store, "tmp")); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"verify", r.ID, "--oci", ref}, {"inspect", r.ID}, {"sbom", r.ID}} {
		if code, out, errs := imageRun(t, append(append([]string{"image"}, args...), "--store", store)...); code != exitOK {
			t.Errorf("%s: %d %s %s", args, code, out, errs)
		}
	}
	if _, err := os.Stat(filepath.Join(store, "tmp")); !os.IsNotExist(err) {
		t.Errorf("reading made a folder: %v", err)
	}
}
