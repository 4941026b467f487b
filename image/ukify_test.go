// SPDX-License-Identifier: Apache-2.0

package image

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
)

// debianPython is Debian's own interpreter: another one on PATH would not
// know the modules of Debian's packages.
const debianPython = "/usr/bin/python3"

// ukify returns the file of systemd's own builder of UKIs. It is Debian 13's
// on every machine, from the private apt root: Debian 12 has none. It is a
// program in Python that needs nothing else of its release. No image carries it.
func ukify(t *testing.T) string {
	t.Helper()
	if out, err := exec.Command(debianPython, "-c", "import pefile").CombinedOutput(); err != nil {
		t.Fatalf("%s with module pefile is needed to run ukify: %v\n%sdo: run ci/setup.sh, which installs python3 and python3-pefile", debianPython, err, out)
	}
	s, err := kernel.Open(kernel.Options{
		Cache: "../build/cache/debian", Lock: "../kernel/debian.lock", WorkLock: filepath.Join(t.TempDir(), "ukify.lock"),
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	p, file, err := s.Package(context.Background(), "systemd-ukify", nil)
	if err != nil {
		t.Fatalf("systemd's ukify: %v", err)
	}
	var program []byte
	err = debian.Walk(context.Background(), file, func(name string, hdr *tar.Header, r io.Reader) error {
		if name != "/usr/bin/ukify" && name != "/usr/lib/systemd/ukify" || hdr.Typeflag != tar.TypeReg {
			return nil
		}
		var err error
		program, err = io.ReadAll(r)
		return err
	})
	if err == nil && len(program) == 0 {
		err = errors.New("the package has no ukify")
	}
	if err != nil {
		t.Fatalf("%s %s: %v", p.Name, p.Version, err)
	}
	path := filepath.Join(t.TempDir(), "ukify")
	if err := os.WriteFile(path, program, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Logf("%s %s", p.Name, p.Version)
	return path
}

// TestUKIAgainstUkify: systemd's own builder, given the same parts, makes a
// file with the same sections, contents, places and headers.
func TestUKIAgainstUkify(t *testing.T) {
	u := sample(stub(t))
	// ukify wants a kernel that looks like one.
	u.Linux = u.Stub
	ours, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	put := func(name string, b []byte) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return p
	}
	out := filepath.Join(dir, "theirs.efi")
	sh(t, debianPython, ukify(t), "build", "--stub", put("stub", u.Stub), "--linux", put("linux", u.Linux), "--initrd", put("initrd", u.Initrd),
		"--cmdline", u.Cmdline, "--os-release", "@"+put("osrel", u.OSRel), "--uname", u.Uname, "--output", out)
	theirs, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	tc, ta, torder := sections(t, theirs)
	oc, oa, order := sections(t, ours)
	if fmt.Sprint(order) != fmt.Sprint(torder) {
		t.Errorf("sections %v, ukify has %v", order, torder)
	}
	for _, s := range order {
		if !bytes.Equal(oc[s], tc[s]) || oa[s] != ta[s] {
			t.Errorf("%s: %d bytes at %#x, ukify has %d at %#x", s, len(oc[s]), oa[s], len(tc[s]), ta[s])
		}
	}
	of, tf := header(t, ours), header(t, theirs)
	if of.SizeOfImage != tf.SizeOfImage || of.DllCharacteristics != tf.DllCharacteristics || of.AddressOfEntryPoint != tf.AddressOfEntryPoint {
		t.Errorf("headers differ: %+v and %+v", of, tf)
	}
}
