// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"

	"github.com/u-root/mkuimage/cpio"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/modules"
)

// judge skips a test whose foreign tool is not there.
func judge(t *testing.T, tool string) string {
	t.Helper()
	p, err := exec.LookPath(tool)
	if err != nil {
		t.Skipf("SKIP judge %s: not installed", tool)
	}
	return p
}

func sh(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return string(out)
}

// parts are Debian's, from the cache of builds or the network.
func parts(t *testing.T) *kernel.Source {
	t.Helper()
	return partsOf(t, "amd64")
}

func partsOf(t *testing.T, arch string) *kernel.Source {
	t.Helper()
	s, err := kernel.Open(kernel.Options{
		Cache: "../build/cache/debian", Lock: "../kernel/debian.lock", WorkLock: filepath.Join(t.TempDir(), "debian.lock"), Arch: arch,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func records(t *testing.T, b []byte) map[string]cpio.Record {
	t.Helper()
	all := map[string]cpio.Record{}
	err := cpio.ForEachRecord(cpio.Newc.Reader(bytes.NewReader(b)), func(r cpio.Record) error {
		all[r.Name] = r
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func text(t *testing.T, r cpio.Record) string {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(r.ReaderAt, 0, int64(r.FileSize)))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestTree(t *testing.T) {
	make := func(backwards bool) []byte {
		tr := NewTree()
		add := []func(){
			func() { tr.File("init", 0o755, []byte("program")) },
			func() { tr.File("etc/zos/root.json", 0o644, []byte("{}")) },
			func() { tr.Symlink("bin/sbin", "/init") },
			func() { tr.Dir("etc", 0o700) },
		}
		for i := range add {
			if backwards {
				i = len(add) - 1 - i
			}
			add[i]()
		}
		b, err := tr.CPIO()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	one, two := make(false), make(false)
	if !bytes.Equal(one, two) {
		t.Error("the same files gave two archives")
	}
	got := records(t, one)
	for _, name := range []string{"dev", "dev/console", "dev/null", "etc", "etc/zos", "bin", "init", "bin/sbin"} {
		r, ok := got[name]
		if !ok {
			t.Errorf("no %s", name)
		}
		if r.MTime != 0 || r.UID != 0 || r.GID != 0 {
			t.Errorf("%s carries a time or an owner: %+v", name, r.Info)
		}
	}
	if got["init"].Mode != cpio.S_IFREG|0o755 || text(t, got["init"]) != "program" || text(t, got["bin/sbin"]) != "/init" {
		t.Errorf("init is %+v", got["init"])
	}
	if got["etc"].Mode != cpio.S_IFDIR|0o700 {
		t.Errorf("a named folder keeps its mode: %o", got["etc"].Mode)
	}
	if a, b := records(t, make(true)), got; len(a) != len(b) {
		t.Errorf("the order of adding matters: %d and %d", len(a), len(b))
	}
}

func TestTreeRefuses(t *testing.T) {
	for name, add := range map[string]func(*Tree){
		"twice":     func(tr *Tree) { tr.File("a", 0o644, nil); tr.File("a", 0o644, nil) },
		"escapes":   func(tr *Tree) { tr.File("../a", 0o644, nil) },
		"unclean":   func(tr *Tree) { tr.File("a//b", 0o644, nil) },
		"empty":     func(tr *Tree) { tr.File("", 0o644, nil) },
		"file, dir": func(tr *Tree) { tr.File("a", 0o644, nil); tr.Dir("a", 0o755) },
	} {
		tr := NewTree()
		add(tr)
		if _, err := tr.CPIO(); !errors.Is(err, ErrPath) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCPIOJudge(t *testing.T) {
	tool := judge(t, "cpio")
	tr := NewTree()
	tr.File("etc/zos/root.json", 0o644, []byte("{}"))
	b, err := tr.CPIO()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(tool, "-it", "--quiet")
	cmd.Stdin = bytes.NewReader(b)
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "etc/zos/root.json\n") {
		t.Errorf("cpio: %v\n%s", err, out)
	}
}

// TestAppended: both archives can be read from what comes out, whatever the
// length of the first.
func TestAppended(t *testing.T) {
	patch := func() *Tree { p := Patch(); p.File("etc/zos/seed.json", 0o600, []byte("seed")); return p }
	for n := range 5 {
		base := bytes.Repeat([]byte{7}, 100+n)
		out, err := Appended(base, patch())
		if err != nil {
			t.Fatal(err)
		}
		at := (len(base) + 3) / 4 * 4
		if !bytes.Equal(out[:len(base)], base) || !bytes.HasPrefix(out[at:], []byte("070701")) {
			t.Errorf("length %d: archive does not start at %d", len(base), at)
		}
		got := records(t, out[at:])
		if text(t, got["etc/zos/seed.json"]) != "seed" || len(got) != 3 {
			t.Errorf("patch holds %d records", len(got))
		}
	}
}

// TestProductionInitKnowsNoFaults: the word is not even in the program.
func TestProductionInitKnowsNoFaults(t *testing.T) {
	for tags, want := range map[string]bool{"": false, "faults": true} {
		b, err := Program{Package: pkgInit, Tags: tags}.Build(context.Background(), "..")
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(b, []byte("/bin/fault")); got != want {
			t.Errorf("init with tags %q: knows /bin/fault: %v", tags, got)
		}
		if limit := 4 << 20; len(b) > limit {
			t.Errorf("init is %d bytes, limit %d", len(b), limit)
		}
	}
}

// TestRealNode builds the node and the guest of the QEMU board from Debian's
// kernel: what a production image holds, and what it never holds.
func TestRealNode(t *testing.T) {
	k, err := parts(t).Linux(context.Background(), "linux-image-cloud-amd64")
	if err != nil {
		t.Skipf("SKIP real kernel: %v", err)
	}
	board, err := boards.Load("qemu-x86_64")
	if err != nil {
		t.Fatal(err)
	}
	n := Node{Linux: k, Sets: board.Modules, Init: []byte("i"), Agent: []byte("a"), Root: []byte("r"), OSRelease: OSRelease("1", "b"), Hypervisor: kernel.Hypervisor{Name: "qemu"}}
	got, chosen := files(t, n)
	for _, never := range []string{"bin/fault", "bin/sh", "etc/zos/seed.json"} {
		if _, ok := got[never]; ok {
			t.Errorf("a production image has %s", never)
		}
	}
	dir := "lib/modules/" + k.Release + "/"
	for _, must := range []string{
		"init", "bin/agent", "etc/zos/root.json", "etc/os-release", "etc/zos/hypervisor.json",
		dir + "modules.dep", dir + "modules.alias", dir + "modules.load", dir + "modules.late", dir + "modules.softdep", dir + "modules.builtin",
	} {
		if _, ok := got[must]; !ok {
			t.Errorf("no %s", must)
		}
	}
	place := map[string]int{}
	for i, m := range chosen {
		for _, d := range m.Depends {
			if at, ok := place[d]; !ok && !k.Tree.Builtin(d) || at > i {
				t.Errorf("%s stands before %s, which it needs", m.Name, d)
			}
		}
		place[m.Name] = i
	}
	for _, must := range []string{"kvm_amd", "kvm_intel", "tun", "bridge", "nf_tables", "nft_meta_bridge", "vhost_vsock", "vfat", "virtio_net", "virtio_blk", "i6300esb", "efivarfs", "dm_crypt"} {
		if _, ok := place[must]; !ok {
			t.Errorf("no module %s", must)
		}
	}
	if late := text(t, got[dir+"modules.late"]); !strings.Contains(late, "vhost_vsock\n") {
		t.Errorf("QEMU's guests have no vsock: %q", late)
	}

	n.Fault, n.Seed, n.Hypervisor.Name = []byte("f"), []byte("s"), "cloud-hypervisor"
	if got, _ = files(t, n); got["bin/fault"].Name == "" || got["etc/zos/seed.json"].Mode&0o777 != 0o600 {
		t.Error("fault program or seed did not get in")
	}
	for name := range got {
		// Nothing on a node asks for these, and nobody else is there to load them.
		for _, idle := range []string{"vhost_vsock", "br_netfilter", "nft_reject", "nft_fib", "nft_limit", "nft_log", "nf_conntrack_bridge", "loop"} {
			if strings.HasPrefix(path.Base(name), idle+".") || strings.HasPrefix(path.Base(name), idle+"_") {
				t.Errorf("%s takes room for nothing", name)
			}
		}
	}
	if _, _, err := (Node{Linux: k, Sets: []string{"no such set"}}).Tree(); err == nil {
		t.Error("an unknown module set was accepted")
	}

	if _, err := (Node{Linux: k, Sets: []string{"raid"}, Drivers: []string{"mpt3sas"}}).Modules(); err == nil || !strings.Contains(err.Error(), "mpt3sas") || !strings.Contains(err.Error(), "the board promises") {
		t.Errorf("a kernel for virtual machines was taken for a board that promises mpt3sas: %v", err)
	}
	for _, name := range []string{"vm-x86_64", "qemu-x86_64"} {
		b, err := boards.Load(name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := (Node{Linux: k, Sets: b.Modules, Drivers: b.Drivers}).Modules(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}

	guest, chosen, err := Guest(k, []byte("program"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(strings.Join(names(chosen), " "), "pvpanic_pci") {
		t.Error("the agent would not hear of a guest's panic")
	}
	if got = records(t, guest); got["modules/line/000-"+chosen[0].Name+".ko"].Name == "" || got["init"].Name == "" {
		t.Error("guest initramfs has no /init or no first module")
	}
	loaded := 0
	for name := range got {
		if !strings.HasSuffix(name, ".ko") {
			continue
		}
		loaded++
		f, err := elf.NewFile(strings.NewReader(text(t, got[name])))
		if err != nil || f.Section(".text") == nil || f.Section(".BTF") != nil {
			t.Errorf("%s: %v, or its types for BPF are found", name, err)
		}
	}
	if loaded != len(chosen) {
		t.Errorf("%d modules in the guest's initramfs, want %d", loaded, len(chosen))
	}
}

func files(t *testing.T, n Node) (map[string]cpio.Record, []modules.Module) {
	t.Helper()
	tree, chosen, err := n.Tree()
	if err != nil {
		t.Fatal(err)
	}
	b, err := tree.CPIO()
	if err != nil {
		t.Fatal(err)
	}
	return records(t, b), chosen
}

func TestProgramRefusesNonsense(t *testing.T) {
	_, err := Program{Package: "github.com/zos-node/zos/nothing/here"}.Build(context.Background(), "..")
	if err == nil || !strings.Contains(err.Error(), "nothing/here") {
		t.Errorf("%v", err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "zos-programs-*")); err != nil || len(left) > 8 {
		t.Errorf("temporary folders stay behind: %v, %v", left, err)
	}
}
