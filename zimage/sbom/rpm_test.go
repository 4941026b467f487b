// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestRPMAgrees has rpm make a database of packages that rpmbuild made, as many
// as need several pages, and one whose header overflows a page, and compares
// with what rpm finds in it.
func TestRPMAgrees(t *testing.T) {
	for _, tool := range []string{"rpm", "rpmbuild"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP TestRPMAgrees: no %s", tool)
		}
	}
	run := func(name string, args ...string) string {
		t.Helper()
		var said bytes.Buffer
		cmd := exec.Command(name, args...)
		cmd.Stderr = &said
		cmd.Env = append(os.Environ(), "HOME="+t.TempDir(), "LC_ALL=C")
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s %s: %v: %s", name, strings.Join(args, " "), err, said.String())
		}
		return string(out)
	}
	top := t.TempDir()
	spec := "Name: base\nVersion: 1.0\nRelease: 2%{?none}\nEpoch: 3\nSummary: s\nLicense: l\nBuildArch: noarch\n%description\nd\n%files\n"
	for i := range 20 {
		spec += fmt.Sprintf("%%package -n part%02d\nSummary: s\n%%description -n part%02d\n%s\n%%files -n part%02d\n", i, i, strings.Repeat("many words ", i*100), i)
	}
	name := filepath.Join(top, "x.spec")
	if err := os.WriteFile(name, []byte(spec), 0o600); err != nil {
		t.Fatal(err)
	}
	run("rpmbuild", "-bb", "--quiet", "--define", "_topdir "+top, "--define", "_build_id_links none", name)
	made, err := filepath.Glob(top + "/RPMS/noarch/*.rpm")
	if err != nil || len(made) != 21 {
		t.Fatalf("%d packages, %v", len(made), err)
	}
	db := t.TempDir()
	with := []string{"--dbpath", db, "--define", "_db_backend sqlite"}
	run("rpm", append(append(with, "--justdb", "--nodeps", "--noscripts", "--nosignature", "-i"), made...)...)
	run("rpm", append(with, "--justdb", "--nodeps", "--noscripts", "-e", "part07")...)
	want := strings.Fields(run("rpm", append(with, "-qa", "--qf", "%{NAME}|%{VERSION}-%{RELEASE}|%{ARCH}|%{EPOCH}\n")...))
	b, err := os.ReadFile(filepath.Join(db, "rpmdb.sqlite"))
	if err != nil {
		t.Fatal(err)
	}
	found := collected(t, treeOf(t, map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": string(b), "etc/os-release": "ID=fedora\n"}))
	var got []string
	for _, p := range found.Packages {
		if p.Space != "fedora" {
			t.Errorf("%+v", p)
		}
		got = append(got, p.Name+"|"+p.Version+"|"+p.Arch+"|"+p.Epoch)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) != 20 || !slices.Equal(got, want) || len(found.Unread) > 0 {
		t.Errorf("found\n%v, rpm\n%v; unread %v", got, want, found.Unread)
	}
	if i := slices.IndexFunc(found.Packages, func(p Package) bool { return p.Name == "base" }); i < 0 || found.Packages[i].purl() != "pkg:rpm/fedora/base@1.0-2?arch=noarch&epoch=3" {
		t.Errorf("package URL of %d", i)
	}
	// Whatever is cut off, nothing is read by half.
	for cut := 0; cut < len(b); cut += 4096 + 512 {
		c := collected(t, treeOf(t, map[string]string{"usr/lib/sysimage/rpm/rpmdb.sqlite": string(b[:cut])}))
		if cut > 0 && len(c.Packages) > 0 && len(c.Packages) < 20 {
			t.Errorf("cut at %d: %d packages", cut, len(c.Packages))
		}
	}
}

// header makes what rpmHeader reads.
func header(tags map[uint32]string) []byte {
	var index, values []byte
	for tag, v := range tags {
		index = binary.BigEndian.AppendUint32(index, tag)
		index = binary.BigEndian.AppendUint32(index, rpmString)
		index = binary.BigEndian.AppendUint32(index, uint32(len(values)))
		index = binary.BigEndian.AppendUint32(index, 1)
		values = append(append(values, v...), 0)
	}
	b := binary.BigEndian.AppendUint32(nil, uint32(len(tags)))
	b = binary.BigEndian.AppendUint32(b, uint32(len(values)))
	return append(append(b, index...), values...)
}

func FuzzRPM(f *testing.F) {
	f.Add(header(map[uint32]string{rpmName: "a", rpmVersion: "1", rpmRelease: "2"}))
	page := make([]byte, 8192)
	copy(page, "SQLite format 3\x00\x10\x00\x01\x01\x00")
	page[100] = 13
	f.Add(page)
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, ok := rpmHeader(b); ok && p.Name == "" {
			t.Error("no name")
		}
		if found, ok := readAll(rpmSQLite, b, "f"); !ok && found != nil {
			t.Error("half of it")
		}
	})
}
