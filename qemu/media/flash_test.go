// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel/modules"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/lab"
	"github.com/zos-node/zos/qemu/lab/wire"
)

// The disk that is flashed, and what an operator would read off its label.
const (
	flashed = "/dev/vda"
	label   = "ZOS-RIG-7K2F"
)

// flashMark is what stood on the disk before, where neither a partition table nor a
// file system is: 40 MiB from its beginning.
var flashMark = bytes.Repeat([]byte("somebody's data."), 1<<16)

const flashMarkAt = 40 << 20

// TestFlash: zos node flash, as it is built, on a disk of a machine, which has a
// serial number and holds data. What the disk holds is looked at from outside; in
// the end it boots.
func TestFlash(t *testing.T) {
	if !all() {
		t.Skip("SKIP here, part of make test-boot")
	}
	source := filepath.Join(images(t, "vm-x86_64"), image.MediumDisk)
	size := func(name string) int64 {
		st, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		return st.Size()
	}
	disk := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteAt(flashMark, flashMarkAt)
	if err := errors.Join(err, f.Truncate(size(source)+64<<20), f.Close()); err != nil {
		t.Fatal(err)
	}
	l := flashLab(t, source, disk)
	flash := func(more ...string) (string, int) {
		t.Helper()
		out, code := l.Run(append([]string{"/lab/zos", "node", "flash", "/lab/node.img", flashed}, more...)...)
		t.Logf("flash %s: exit %d\n%s", strings.Join(more, " "), code, out)
		return out, code
	}
	refused := func(why string, more ...string) {
		t.Helper()
		before := sum(t, disk)
		if out, code := flash(more...); code != 3 || !strings.Contains(out, why) {
			t.Errorf("flash %v: exit %d, want 3 and %q", more, code, why)
		}
		if sum(t, disk) != before {
			t.Fatalf("flash %v has written on the disk", more)
		}
	}
	// Not empty: the plan says what is there, and which serial number would do.
	refused("holds   data, such as at byte " + strconv.Itoa(flashMarkAt))
	refused("--serial "+strconv.Quote(label), "--write")
	refused("the disk's serial number is "+strconv.Quote(label), "--write", "--serial", "ZOS-RIG-7K2G")
	refused("the disk's serial number is "+strconv.Quote(label), "--write", "--serial", strings.ToLower(label))
	refused("the disk's serial number is "+strconv.Quote(label), "--write", "--serial", label[:8])
	if out, code := flash("--serial", label); code != 0 || !strings.Contains(out, "nothing was written") || !bytes.Equal(part(t, disk, flashMarkAt, len(flashMark)), flashMark) {
		t.Fatalf("the plan alone: exit %d\n%s", code, out)
	}

	// Written, and read back from the disk: not from the memory that remembers writing.
	read := sectorsRead(t, l)
	if out, code := flash("--write", "--serial", label); code != 0 || !strings.Contains(out, "written, and read back the same") {
		t.Fatalf("exit %d\n%s", code, out)
	}
	if got, want := (sectorsRead(t, l)-read)*512, size(source)-2<<20; got < want {
		t.Errorf("the disk gave %d bytes while %d were read back: the rest came from memory", got, want)
	}
	same(t, source, disk)

	// In use, as the list of mounts says; and where it does not, as the kernel says.
	l.Mount(wire.Mount{Device: flashed + "1", At: "/mnt", Kind: "vfat"})
	refused("vda1 mounted on /mnt", "--write", "--serial", label)
	l.Unmount("/mnt")
	l.Mount(wire.Mount{Device: flashed + "1", At: "/unseen", Kind: "vfat", ReadOnly: true, Unseen: true})
	before := sum(t, disk)
	if out, code := flash("--write", "--serial", label); code != 1 || !strings.Contains(out, "somebody uses it; unmount it") {
		t.Errorf("a disk that another mount namespace uses: exit %d\n%s", code, out)
	}
	if sum(t, disk) != before {
		t.Fatal("a disk in use was written")
	}
	l.Off()

	m := start(t, qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "virtio"}})
	says(t, m, seedFrom(`/dev/vda1:`))
}

// flashLab has the disk, and a second one with the tool and the image.
func flashLab(t *testing.T, source, disk string) *lab.Lab {
	t.Helper()
	work, volume := t.TempDir(), filepath.Join(t.TempDir(), "work.ext4")
	if err := os.WriteFile(filepath.Join(work, "zos"), lab.Build(t, "build", "github.com/zos-node/zos/cmd/zos"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("cp", "--sparse=always", source, filepath.Join(work, "node.img")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := exec.Command("/usr/sbin/mke2fs", "-q", "-t", "ext4", "-O", "^has_journal", "-d", work, volume, "512M").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var wants []modules.Want
	for _, name := range []string{"virtio_pci", "virtio_blk", "ext4", "vfat", "nls_cp437", "nls_ascii", "button"} {
		wants = append(wants, modules.Want{Name: name, Load: true, Optional: true})
	}
	drive := func(id, file, more string) []string {
		return []string{"-drive", fmt.Sprintf("if=none,id=%s,format=raw,file=%s", id, strings.ReplaceAll(file, ",", ",,")), "-device", "virtio-blk-pci,drive=" + id + more}
	}
	l := lab.Start(t, lab.Parts{Repo: repo, Modules: wants, Programs: []string{"cat"}},
		// Room for image and disk: what is read twice would come from memory.
		qemu.Options{MemoryMiB: 2048, Log: consoleLog(t), Args: append(drive("disk", disk, ",serial="+label), drive("work", volume, "")...)}, limit)
	l.Mount(wire.Mount{Device: "/dev/vdb", At: "/lab", Kind: "ext4", ReadOnly: true})
	return l
}

// sum is a digest of a whole file.
func sum(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("sha256sum", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func part(t *testing.T, name string, at int64, length int) []byte {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, length)
	if _, err := io.ReadFull(io.NewSectionReader(f, at, int64(length)), b); err != nil {
		t.Fatal(err)
	}
	return b
}

// sectorsRead is how much the kernel has read from the disk so far.
func sectorsRead(t *testing.T, l *lab.Lab) int64 {
	t.Helper()
	words := strings.Fields(l.Must("cat", "/sys/block/"+filepath.Base(flashed)+"/stat"))
	if len(words) < 3 {
		t.Fatalf("statistics of the disk: %q", words)
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// same holds the disk against the image: what it boots, and its table, which is for
// its own size.
func same(t *testing.T, source, disk string) {
	t.Helper()
	a, err := image.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	b, err := image.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !a.Same(b) || !bytes.Equal(a.Seed, b.Seed) {
		t.Error("the disk holds another image")
	}
	out, err := exec.Command("sgdisk", "-v", disk).CombinedOutput()
	if err != nil || !regexp.MustCompile(`No problems found`).Match(out) {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
}
