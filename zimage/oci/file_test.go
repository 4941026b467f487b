// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/zos-node/zos/zimage"
)

// TestFiles: layouts and archives give their plain layers as files, which notice
// when somebody writes, also one who sets the time back; registries do not.
func TestFiles(t *testing.T) {
	layer := static.NewLayer(layerTar(t, map[string]string{"etc/name": "plain"}), types.OCIUncompressedLayer)
	img, err := mutate.AppendLayers(twoLayers(t, "amd64"), layer)
	if err != nil {
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
	archive := filepath.Join(t.TempDir(), "app.tar")
	tag, err := name.NewTag("app:v1")
	if err != nil {
		t.Fatal(err)
	}
	if err := tarball.WriteToFile(archive, tag, img); err != nil {
		t.Fatal(err)
	}
	hash := digest(t, layer)
	blob := filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(hash, "sha256:"))
	for ref, path := range map[string]string{"oci:" + dir: blob, "docker-archive:" + archive: archive} {
		src, err := OpenSource(ref)
		if err != nil {
			t.Fatal(err)
		}
		f, err := src.(zimage.Filer).File(hash)
		if err != nil || f == nil {
			t.Fatalf("%s: %v %v", ref, f, err)
		}
		b := make([]byte, f.Size())
		if _, err := f.ReadAt(b, 0); err != nil {
			t.Fatal(err)
		}
		if h, _, err := v1.SHA256(strings.NewReader(string(b))); err != nil || h.String() != hash {
			t.Errorf("%s: it hashes to %s, want %s: %v", ref, h, hash, err)
		}
		if err := f.Unchanged(); err != nil {
			t.Errorf("%s: nobody wrote: %v", ref, err)
		}
		was, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// The kernel's clock of inodes goes in steps: write until one has passed.
		for deadline := time.Now().Add(time.Minute); ; {
			w, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			_, werr := w.WriteAt([]byte{1}, was.Size()/2)
			if err := errors.Join(werr, w.Close(), os.Chtimes(path, was.ModTime(), was.ModTime())); err != nil {
				t.Fatal(err)
			}
			if err = f.Unchanged(); errors.Is(err, zimage.ErrMismatch) {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("%s: written to: %v", ref, err)
			}
		}
		if err := errors.Join(f.Close(), src.Close()); err != nil {
			t.Error(err)
		}
	}
	src, err := OpenSource("localhost/app@" + hash)
	if err != nil {
		t.Fatal(err)
	}
	if f, err := src.(zimage.Filer).File(hash); f != nil || err != nil {
		t.Errorf("a registry's: %v %v", f, err)
	}
}

// TestInsecureNames: a name that leads out of a folder is one more name in an
// archive, whatever Go's reader of tars thinks of it.
func TestInsecureNames(t *testing.T) {
	t.Setenv("GODEBUG", "tarinsecurepath=0")
	file := filepath.Join(t.TempDir(), "a.tar")
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for _, name := range []string{"../odd", "/odd", "manifest.json"} {
		if err := w.WriteHeader(&tar.Header{Name: name, Size: 2, Mode: 0o644}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte("[]")); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(w.Close(), os.WriteFile(file, b.Bytes(), 0o600)); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenSource("docker-archive:" + file); !errors.Is(err, ErrRef) || !strings.Contains(err.Error(), "0 images") {
		t.Errorf("got %v, want a word about manifest.json", err)
	}
}
