// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

// TestGolden holds Format 2: the same root for the same image, today as when
// the table was written, and twice in a row. fsck.erofs judges each.
func TestGolden(t *testing.T) {
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
