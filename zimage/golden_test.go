// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"archive/tar"
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// TestGolden holds Format 4: the same root for the same image, today as when
// the table was written, and twice in a row. fsck.erofs judges each.
func TestGolden(t *testing.T) {
	if Format != goldenFormat {
		t.Errorf("the tables are of format %d, Convert makes %d: make their values anew", goldenFormat, Format)
	}
	fsck, err := exec.LookPath("fsck.erofs")
	if err != nil {
		t.Log("SKIP fsck.erofs as a judge: it is not installed (package erofs-utils)")
	}
	seen := map[string]bool{}
	check := func(name, want string, tars [][]byte) {
		seen[want] = true
		t.Run(name, func(t *testing.T) {
			s, m, id := converted(t, ociImageOf(t, nil, tars...))
			if m.Verity.Root != want {
				t.Errorf("root is\n%q, want\n%q", m.Verity.Root, want)
			}
			if _, _, again := converted(t, ociImageOf(t, nil, tars...)); again != id {
				t.Errorf("converted again, it is %s, not %s", again, id)
			}
			if fsck == "" {
				return
			}
			disk := filepath.Join(t.TempDir(), "disk")
			if err := os.WriteFile(disk, assemble(t, s, m), 0o600); err != nil {
				t.Fatal(err)
			}
			if out, err := exec.Command(fsck, "--extract", disk).CombinedOutput(); err != nil || bytes.Contains(out, []byte("<E>")) {
				t.Errorf("fsck.erofs: %v: %s", err, out)
			}
		})
	}
	for _, c := range corners() {
		check(c.name, c.root, c.tars(t))
	}
	for _, c := range rawCorners() {
		check(c.name, c.root, [][]byte{c.tar})
	}
	if len(seen) < 25 {
		t.Errorf("the table has %d different roots, want 25 at least", len(seen))
	}
}

// goldenFormat is the format that all golden values are of.
const goldenFormat = 4

// TestGoldenIDs holds what a verity root says nothing of: the SPDX document,
// and the image id, which names document, root, chunks and process.
func TestGoldenIDs(t *testing.T) {
	elf := func(b64 string) []byte {
		b, err := base64.StdEncoding.DecodeString(b64)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	executable := func(h *tar.Header) { h.Mode = 0o755 }
	program := file("bin/app", elf(elfProgram)).with(executable)
	packages := []item{
		file("etc/os-release", []byte("NAME=x\nID=debian\n")),
		file("var/lib/dpkg/status", []byte("Package: libc6\nStatus: install ok installed\nVersion: 2.36-9+deb12u1\nArchitecture: amd64\n\nPackage: gone\nStatus: deinstall ok config-files\nVersion: 1\n\nPackage: a<b>&\xff\nStatus: install ok installed\nVersion: 1:2~3\n")),
		file("lib/apk/db/installed", []byte("P:musl\nV:1.2.4-r2\nA:x86_64\n\n")),
		file("usr/lib/python3/Flask.dist-info/METADATA", []byte("Name: Flask_Thing\nVersion: 3.0\n\nName: not this\n")),
		file("app/package-lock.json", []byte(`{"packages":{"":{"version":"9"},"node_modules/left":{"version":"1.1"},"node_modules/@b/c":{"version":"2"}}}`)),
		file("app/Cargo.lock", []byte("[[package]]\nname = \"serde\"\nversion = \"1.0.1\"\n")),
		file("app/go.jar", []byte("PK")),
	}
	for _, c := range []struct {
		name, spdx, id string
		image          *memory
	}{
		{"nothing", "38420678b2e95f835740465c86f53897e5d020dfad157400782a281221c8bdb1", "0e3f115f4417f04c4a2e7e42d88eadd4949a4bcd8a3091fbf17d11157bd8f69b", ociImageOf(t, nil)},
		{"packages", "1c20afa8a0fd066a098b15c1d4eec1d08e0239eac834cf55b81c655f7a8773bd", "da52609cf133c79d64918abe4ea1168ad0d301b84096fb0e1cad46e032e98182", ociImage(t, packages)},
		{"a program, its library, and one that is missing", "bb4a0b70555a6b36f056bef383cd53c790b50b5752b361364983215257598577", "9f78ccbf3ff0509108d283f06e3d87f48a82ff94f7e1e941850d81cd46d644ee",
			ociImage(t, append(packages, program, file("lib/ld.so", elf(elfLibrary)).with(executable), file("usr/lib/libx.so", elf(elfLibrary))))},
		{"a process", "425cb536cc5055795da4dd970ba2a5f3d8907a50c660fa7c4e0508c78b897341", "250e3c9a6e4ede3c768197b863bc9c5744aac4a532e6b16a7194237c214a96c1", ociImageOf(t,
			map[string]any{"User": "daemon", "Env": []string{"A=b", "PATH=/bin"}, "Entrypoint": []string{"/bin/app"}, "Cmd": []string{"-x"}, "WorkingDir": "/w", "StopSignal": "SIGQUIT"},
			tarOf(t, []item{file("etc/passwd", []byte("root:x:0:0::/:\ndaemon:x:1:2::/:\n")), file("etc/group", []byte("daemon:x:2:\n"))}), tarOf(t, []item{program}))},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, m, id := converted(t, c.image)
			if m.SBOM != "sha256:"+c.spdx || id != "sha256:"+c.id {
				t.Errorf("SPDX and id are\n%q, %q, want\n%q, %q", strings.TrimPrefix(m.SBOM, "sha256:"), strings.TrimPrefix(id, "sha256:"), c.spdx, c.id)
			}
		})
	}
}

// elfProgram is what the dynamic linker reads of a program that needs
// libx.so and libmissing.so and is loaded by /lib/ld.so; elfLibrary what it reads of a
// library that needs nothing.
const (
	elfProgram = "f0VMRgIBAQAAAAAAAAAAAAMAPgAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOAADAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAASgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgAAAAAAAAD/AAAAAAAAAP8QAAAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAADAAAAAAAAAD8BAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAsAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABsaWJ4LnNvAGxpYm1pc3Npbmcuc28AAQAAAAAAAAABAAAAAAAAAAEAAAAAAAAACQAAAAAAAAAFAAAAAAAAAOgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAC9saWIvbGQuc28A"
	elfLibrary = "f0VMRgIBAQAAAAAAAAAAAAMAPgAAAAAAAAAAAAAAAABAAAAAAAAAAAAAAAAAAAAAAAAAAAAAOAADAAAAAAAAAAEAAAAAAAAAAAAAAAAAAAAAEAAAAAAAAAAAAAAAAAAACgEAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgAAAAAAAADpAAAAAAAAAOkQAAAAAAAAAAAAAAAAAAAgAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAFAAAAAAAAAOgQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="
)

// TestInPlace: layers whose contents stay in a file, each of them or every
// second, give the image that streams give.
func TestInPlace(t *testing.T) {
	image := func(tars [][]byte, in func(layer int) bool) []byte {
		spool, err := unnamed(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		defer spool.Close()
		tree := flat.New(spool, flat.DefaultLimits())
		for i, b := range tars {
			if in(i) {
				err = tree.LayerIn(bytes.NewReader(b), int64(len(b)))
			} else {
				err = tree.Layer(bytes.NewReader(b))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		var out bytes.Buffer
		if _, err := erofs.Write(&out, tree.Root()); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	check := func(name string, tars [][]byte) {
		t.Run(name, func(t *testing.T) {
			want := image(tars, func(int) bool { return false })
			if !bytes.Equal(image(tars, func(int) bool { return true }), want) {
				t.Error("from files it is another image")
			}
			if !bytes.Equal(image(tars, func(i int) bool { return i%2 == 1 }), want) {
				t.Error("half from files it is another image")
			}
		})
	}
	for _, c := range corners() {
		check(c.name, c.tars(t))
	}
	for _, c := range rawCorners() {
		check(c.name, [][]byte{c.tar})
	}
}

// TestVeritysetupVerify has cryptsetup check a whole disk.
func TestVeritysetupVerify(t *testing.T) {
	tool, err := exec.LookPath("veritysetup")
	if err != nil {
		t.Skip("SKIP TestVeritysetupVerify: no veritysetup (package cryptsetup-bin)")
	}
	s, m, _ := converted(t, sample(t))
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, assemble(t, s, m), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(tool, "verify", "--no-superblock", "--format=1", "--hash=sha256", "--salt=-",
		"--data-block-size=4096", "--hash-block-size=4096", fmt.Sprintf("--data-blocks=%d", m.Verity.HashStart),
		fmt.Sprintf("--hash-offset=%d", m.DataSize), disk, disk, m.Verity.Root).CombinedOutput()
	if err != nil {
		t.Errorf("veritysetup: %v: %s", err, out)
	}
}
