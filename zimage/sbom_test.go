// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestStrict(t *testing.T) {
	program, err := os.ReadFile("/bin/ls")
	if err != nil {
		t.Skip("SKIP TestStrict: no /bin/ls")
	}
	alone := file("bin/ls", program).with(func(h *tar.Header) { h.Mode = 0o755 })
	r, err := Converter{Store: openTestStore(t)}.Convert(t.Context(), ociImage(t, []item{alone}), "linux/amd64")
	if err != nil || len(r.Missing) < 2 || r.Missing[0].Executable != "/bin/ls" {
		t.Errorf("a program without its libraries: %v, missing %v", err, r.Missing)
	}
	for name, items := range map[string][]item{
		"shared object missing": {alone},
		"packages not read":     {file("app/yarn.lock", []byte("x"))},
	} {
		s := openTestStore(t)
		if _, err := (Converter{Store: s, Strict: true}).Convert(t.Context(), ociImage(t, items), "linux/amd64"); !errors.Is(err, ErrIncomplete) {
			t.Errorf("%s: %v", name, err)
		}
		if left, err := filepath.Glob(filepath.Join(s.Dir(), "*", "*")); err != nil || len(left) != 0 {
			t.Errorf("left in the store: %v %v", left, err)
		}
	}
	if _, err := (Converter{Strict: true}).Convert(t.Context(), sample(t), "linux/amd64"); err != nil {
		t.Errorf("an image that is whole: %v", err)
	}
}

// TestSBOMIsNamed: the document hangs on the image id, and one that was
// altered is found, in a store and on a mirror.
func TestSBOMIsNamed(t *testing.T) {
	s, m, id := converted(t, ociImage(t, []item{file("var/lib/dpkg/status", []byte("Package: a\nVersion: 1\nStatus: install ok installed\n"))}))
	b, err := s.SBOM(m)
	if err != nil || !bytes.Contains(b, []byte("pkg:deb/a@1")) {
		t.Fatalf("%s %v", b, err)
	}
	f, _ := fetcher(serveStore(t, s, nil).URL)
	if got, err := f.SBOM(t.Context(), m); err != nil || !bytes.Equal(got, b) {
		t.Errorf("from a mirror: %v", err)
	}
	put(t, filepath.Join(s.Dir(), "blobs", m.SBOM[7:]), append(b, ' '))
	if _, err := s.Verify(t.Context(), id, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("altered in the store: %v", err)
	}
	if _, err := f.Verify(t.Context(), id, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("altered on the mirror: %v", err)
	}
}
