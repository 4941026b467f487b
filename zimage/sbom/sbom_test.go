// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"archive/tar"
	"bytes"
	"debug/elf"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/zimage/flat"
)

// treeOf makes an image of files; a name that ends in "@" is a symlink, one
// that starts with "x:" is executable.
func treeOf(t testing.TB, files map[string]string) *flat.Tree {
	t.Helper()
	var b bytes.Buffer
	w := tar.NewWriter(&b)
	for name, content := range files {
		h := tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o644, Size: int64(len(content))}
		if rest, ok := strings.CutPrefix(name, "x:"); ok {
			h.Name, h.Mode = rest, 0o755
		}
		if rest, ok := strings.CutSuffix(name, "@"); ok {
			h = tar.Header{Name: rest, Typeflag: tar.TypeSymlink, Linkname: content}
			content = ""
		}
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(content)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(t.TempDir(), "spool"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() }) // a test's file
	tree := flat.New(f, flat.DefaultLimits())
	if err := tree.Layer(&b); err != nil {
		t.Fatal(err)
	}
	return tree
}

func TestPackages(t *testing.T) {
	c := collected(t, treeOf(t, map[string]string{
		"etc/os-release":                     "NAME=x\nID=debian\n",
		"var/lib/dpkg/status":                "Package: a\nStatus: install ok installed\nVersion: 1:2-3\nArchitecture: amd64\nDescription: x\n more: y\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n",
		"var/lib/dpkg/status.d/base":         "Package: base-files\nVersion: 12\nArchitecture: all\n",
		"lib/apk/db/installed":               "C:Q1\nP:musl\nV:1.2.4-r2\nA:x86_64\n\n",
		"usr/x.dist-info/METADATA":           "Metadata-Version: 2.1\nName: Flask_Thing\nVersion: 3.0\n\nName: not this\n",
		"app/node_modules/@s/p/package.json": `{"name":"@s/p","version":"1.0.0"}`,
		"app/package.json":                   `{"name":"app","version":"9"}`,
		"app/package-lock.json":              `{"lockfileVersion":3,"packages":{"":{"version":"9"},"node_modules/left":{"version":"1.1"},"node_modules/a/node_modules/@b/c":{"version":"2"}}}`,
		"old/package-lock.json":              `{"dependencies":{"x":{"version":"1","dependencies":{"y":{"version":"2"}}}}}`,
		"Cargo.lock":                         "version = 3\n\n[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\ndependencies = [\n \"x\",\n]\n\n[metadata]\nname = \"no\"\n",
		"py/poetry.lock":                     "[[package]]\nname = \"six\"\nversion = \"1.16\"\n[package.extras]\nversion = \"no\"\n",
		"Gemfile.lock":                       "GEM\n  remote: x\n  specs:\n    rack (2.2.3)\n      dep (>= 1)\n\nPLATFORMS\n  ruby\n",
		"composer.lock":                      `{"packages":[{"name":"v/n","version":"v1"}]}`,
		"yarn.lock":                          "x",
		"broken/package-lock.json":           "{",
		"var/lib/rpm/rpmdb.sqlite":           "SQLite",
		"other/Packages":                     "not rpm's",
		"usr/lib/sysimage/rpm/Packages":      "Berkeley DB",
		"app/lib.jar":                        "PK",
		"opt/conda/conda-meta/x.json":        "{}",
	}))
	var got []string
	for _, p := range c.Packages {
		got = append(got, p.purl())
	}
	want := []string{
		"pkg:apk/debian/musl@1.2.4-r2?arch=x86_64", "pkg:cargo/serde@1.0.1", "pkg:composer/v/n@v1", "pkg:deb/debian/a@1:2-3?arch=amd64",
		"pkg:deb/debian/base-files@12?arch=all", "pkg:gem/rack@2.2.3", "pkg:npm/left@1.1", "pkg:npm/x@1", "pkg:npm/y@2", "pkg:npm/%40b/c@2", "pkg:npm/%40s/p@1.0.0",
		"pkg:pypi/flask-thing@3.0", "pkg:pypi/six@1.16",
	}
	if !slices.Equal(got, want) {
		t.Errorf("found\n%q, want\n%q", got, want)
	}
	if want := []string{"/app/lib.jar", "/broken/package-lock.json", "/opt/conda/conda-meta/x.json", "/usr/lib/sysimage/rpm/Packages", "/var/lib/rpm/rpmdb.sqlite", "/yarn.lock"}; !slices.Equal(c.Unread, want) {
		t.Errorf("unread %q, want %q", c.Unread, want)
	}
}

// TestDpkgAgrees has dpkg-query judge what is read of this machine's database.
func TestDpkgAgrees(t *testing.T) {
	if _, err := exec.LookPath("dpkg-query"); err != nil {
		t.Skip("SKIP TestDpkgAgrees: no dpkg-query")
	}
	b, err := os.ReadFile("/var/lib/dpkg/status")
	if err != nil {
		t.Skip("SKIP TestDpkgAgrees: no dpkg database")
	}
	// A copy: somebody may be installing something, and dpkg-query would see
	// what does not stand in that file yet.
	admin := t.TempDir()
	for _, dir := range []string{"updates", "info", "triggers"} {
		if err := os.Mkdir(filepath.Join(admin, dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(admin, "status"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("dpkg-query", "--admindir", admin, "-W", "-f", "${db:Status-Status} ${Package} ${Version} ${Architecture}\n").Output()
	if err != nil {
		t.Fatalf("dpkg-query: %v", err)
	}
	list, ok := readAll(dpkg, b, "status")
	var got, want []string
	for _, p := range list {
		got = append(got, p.Name+" "+p.Version+" "+p.Arch)
	}
	for line := range strings.Lines(string(out)) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), "installed "); ok {
			want = append(want, rest)
		}
	}
	slices.Sort(got)
	slices.Sort(want)
	if !ok || !slices.Equal(got, want) {
		t.Errorf("%d packages, dpkg-query has %d", len(got), len(want))
	}
}

// TestLddAgrees has the dynamic linker itself judge: a program of this
// machine and what ldd says it loads resolve, and without one of them not.
func TestLddAgrees(t *testing.T) {
	const program = "/usr/bin/git"
	out, err := exec.Command("ldd", program).Output()
	if err != nil {
		t.Skip("SKIP TestLddAgrees: no ldd, or no git")
	}
	files := map[string]string{"x:" + program: string(must(os.ReadFile(program))(t))}
	var want []string
	for _, m := range regexp.MustCompile(`(/\S+) \(0x`).FindAllSubmatch(out, -1) {
		name := string(m[1])
		files[name] = string(must(os.ReadFile(name))(t))
		want = append(want, name)
	}
	if len(want) < 3 {
		t.Fatalf("ldd says %s", out)
	}
	c := collected(t, treeOf(t, files))
	if len(c.Missing) != 0 {
		t.Errorf("missing: %v", c.Missing)
	}
	all := map[string]bool{}
	for _, to := range c.Links {
		for _, name := range to {
			all[name] = true
		}
	}
	for _, name := range want {
		if !all[name] {
			t.Errorf("ldd has %s, we have %v", name, all)
		}
	}
	if len(all) != len(want) {
		t.Errorf("ldd has %d, we have %d", len(want), len(all))
	}
	for _, gone := range want {
		less := map[string]string{}
		for name, content := range files {
			if name != gone {
				less[name] = content
			}
		}
		m := collected(t, treeOf(t, less)).Missing
		if len(m) == 0 || m[0].Executable != program || filepath.Base(m[0].Needs) != filepath.Base(gone) {
			t.Errorf("without %s: missing %v", gone, m)
		}
	}
}

func collected(t testing.TB, tree *flat.Tree) Catalog {
	t.Helper()
	c, err := Collect(tree)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func written(t testing.TB, about About, c Catalog) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := Write(&b, about, c); err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b.Bytes()) {
		t.Fatalf("no JSON: %s", b.Bytes())
	}
	return b.Bytes()
}

// readAll has one reader read bytes, as a collector does.
func readAll(read reader, b []byte, file string) (out []Package, ok bool) {
	in := newInput(bytes.NewReader(b), 0, int64(len(b)), file, "debian")
	in.keep = func(p Package) { out = append(out, p) }
	in.forget = func() { out = nil }
	if !read(in) || in.cut {
		return nil, false
	}
	return out, true
}

func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// TestELFAgrees compares with the standard library's reader, on what this
// machine has.
func TestELFAgrees(t *testing.T) {
	names, err := filepath.Glob("/usr/bin/*")
	if err != nil {
		t.Fatal(err)
	}
	libs, err := filepath.Glob("/usr/lib/*-linux-gnu/*.so*")
	if err != nil {
		t.Fatal(err)
	}
	read := 0
	for i, name := range append(names, libs...) {
		if i%7 != 0 {
			continue
		}
		f, err := elf.Open(name)
		if err != nil {
			continue
		}
		read++
		want, _ := f.DynString(elf.DT_NEEDED)
		runpath, _ := f.DynString(elf.DT_RUNPATH)
		r := must(os.Open(name))(t)
		info := must(r.Stat())(t)
		got, ok := readELF(r, info.Size())
		if !ok || !slices.Equal(got.needed, want) || got.runpath != strings.Join(runpath, "") || got.machine != uint16(f.Machine) {
			t.Errorf("%s: %+v, want %v %v", name, got, want, runpath)
		}
		r.Close()
		f.Close()
	}
	t.Logf("%d ELF files", read)
}

func TestDocument(t *testing.T) {
	about := About{Manifest: "sha256:" + strings.Repeat("0", 64), Platform: "linux/amd64", Created: "2024-05-06T07:08:09.5+02:00"}
	c := Catalog{
		Packages: []Package{{Type: "deb", Space: "debian", Name: "a\xff<", Version: "1", Arch: "amd64", Source: "/var/lib/dpkg/status"}},
		Links:    map[string][]string{"/bin/a": {"/lib/b"}}, Missing: []Missing{{"/bin/a", "/lib/b", "libx.so"}}, Unread: []string{"/yarn.lock"},
	}
	b := written(t, about, c)
	if again := written(t, about, c); !bytes.Equal(b, again) {
		t.Error("written again it is another")
	}
	var d struct {
		head
		Packages      []packageInfo
		Relationships []relationship
		Annotations   []annotation
	}
	if err := json.Unmarshal(b, &d); err != nil {
		t.Fatal(err)
	}
	if d.Creation.Created != "2024-05-06T05:08:09Z" || len(d.Packages) != 4 || len(d.Relationships) != 5 || len(d.Annotations) != 2 {
		t.Errorf("%s", b)
	}
	ids := map[string]bool{d.ID: true}
	for _, p := range d.Packages {
		if ids[p.ID] {
			t.Errorf("%s stands twice", p.ID)
		}
		ids[p.ID] = true
	}
	for _, r := range d.Relationships {
		if !ids[r.From] || !ids[r.To] {
			t.Errorf("%+v names nothing", r)
		}
	}
}

func TestGoProgram(t *testing.T) {
	self := must(os.ReadFile(must(os.Executable())(t)))(t)
	c := collected(t, treeOf(t, map[string]string{"x:app": string(self)}))
	var purls []string
	for _, p := range c.Packages {
		purls = append(purls, p.purl())
	}
	if !slices.ContainsFunc(purls, func(s string) bool { return strings.HasPrefix(s, "pkg:golang/std@1") }) {
		t.Errorf("a Go program has %q", purls)
	}
}

// FuzzELF: whatever a file holds, reading it ends and takes little.
func FuzzELF(f *testing.F) {
	for _, name := range []string{"/bin/true", "/usr/bin/git"} {
		if b, err := os.ReadFile(name); err == nil {
			f.Add(b[:min(len(b), 8192)])
		}
	}
	f.Add([]byte("\x7fELF\x02\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		o, ok := readELF(bytes.NewReader(b), int64(len(b)))
		if ok && (len(o.needed) > maxNeeded || len(o.interp) > maxString) {
			t.Errorf("%+v", o)
		}
	})
}

// FuzzPackages: no database makes a reader fail otherwise than by saying so.
func FuzzPackages(f *testing.F) {
	for name := range lockFiles {
		f.Add(name, []byte(`{"packages":{"node_modules/a":{"version":"1"}}}`))
		f.Add(name, []byte("[[package]]\nname = \"a\"\n"))
		f.Add(name, []byte("  specs:\n    a (1)\n"))
	}
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		read := lockFiles[name]
		if read == nil {
			read = pythonMetadata
		}
		list, ok := readAll(read, b, name)
		again, ok2 := readAll(read, b, name)
		if ok != ok2 || fmt.Sprint(list) != fmt.Sprint(again) {
			t.Error("read again it is another list")
		}
		written(t, About{Manifest: "sha256:" + strings.Repeat("0", 64)}, Catalog{Packages: list})
		readAll(dpkg, b, name)
		readAll(apk, b, name)
	})
}
