// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/image"
)

func img(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "node.img")
	b := image.Boot{Arch: "amd64", Version: "1", Loader: []byte("loader"), UKI: bytes.Repeat([]byte("uki"), 500_000), Seed: []byte("{}")}
	if err := (image.Disk{Boot: b, ESPMiB: 64}).Write(name); err != nil {
		t.Fatal(err)
	}
	return name
}

func blank(t *testing.T, size int64) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disk")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Truncate(size), f.Close()); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestDecide(t *testing.T) {
	good := Device{Size: 10, Sector: 512, Serial: "A1"}
	used, full, nameless := good, good, good
	used.InUse, full.Holds, nameless.Serial, nameless.Holds = "sda1 mounted on /", "data", "", "data"
	fullUsed := full
	fullUsed.InUse = used.InUse
	for name, c := range map[string]struct {
		kind   string
		sector int
		size   int64
		d      Device
		serial string
		says   string
	}{
		"empty":                {"disk", 512, 10, good, "", ""},
		"empty, serial":        {"disk", 512, 10, good, "A1", ""},
		"empty, wrong serial":  {"disk", 512, 10, good, "A2", `"A1", not "A2"`},
		"full":                 {"disk", 512, 10, full, "", `--serial "A1"`},
		"full, serial":         {"disk", 512, 10, full, "A1", ""},
		"full, part of serial": {"disk", 512, 10, full, "A", `not "A"`},
		"full, other case":     {"disk", 512, 10, full, "a1", `not "a1"`},
		"in use, serial":       {"disk", 512, 10, fullUsed, "A1", "in use"},
		"in use":               {"disk", 512, 10, used, "", "in use"},
		"no serial":            {"disk", 512, 10, nameless, "", "by hand"},
		"no serial, one named": {"disk", 512, 10, nameless, "A1", "does not tell"},
		"small":                {"disk", 512, 11, good, "", "needs 11"},
		"sectors":              {"disk", 4096, 10, good, "", "node.img for 512"},
		"an ISO":               {"iso", 512, 10, good, "", "flash node.img, or node-4k.img. An ISO goes onto a stick byte for byte"},
		"a UKI":                {"uki", 0, 10, good, "", "node.img"},
	} {
		got := decide(c.kind, c.sector, c.size, c.d, c.serial)
		if (got == "") != (c.says == "") || !strings.Contains(got, c.says) {
			t.Errorf("%s: %q, want %q", name, got, c.says)
		}
	}
}

// TestWrite: the disk is larger than the image, and its table is right for it.
func TestWrite(t *testing.T) {
	source, disk := img(t), blank(t, 200<<20)
	p, err := Look(t.Context(), source, disk, "", nil)
	if err != nil || p.Refused != "" {
		t.Fatalf("%+v, %v", p, err)
	}
	steps := map[string]int64{}
	if err := p.Write(context.Background(), func(s string, done, total int64) { steps[s] = total - done }); err != nil {
		t.Fatal(err)
	}
	if len(steps) != 2 || steps["writing"] != 0 || steps["verifying"] != 0 {
		t.Errorf("progress ends at %v", steps)
	}
	if sgdisk, err := exec.LookPath("sgdisk"); err != nil {
		t.Log("SKIP judge sgdisk: not installed")
	} else if out, err := exec.Command(sgdisk, "-v", disk).CombinedOutput(); err != nil || !strings.Contains(string(out), "No problems found") {
		t.Errorf("sgdisk: %v\n%s", err, out)
	}
	again, err := Look(t.Context(), source, disk, "", nil)
	if err != nil || !strings.Contains(again.Refused, "a GPT partition table") {
		t.Errorf("a written disk: %+v, %v", again, err)
	}
	if err := again.Write(context.Background(), nil); !errors.Is(err, ErrRefused) {
		t.Errorf("a refused plan was written: %v", err)
	}
	// A disk that does not keep what it was given is found out.
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	src, err := os.Open(source)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if err := p.verify(context.Background(), src, f, nil); err != nil {
		t.Errorf("a good disk: %v", err)
	}
	if _, err := f.WriteAt([]byte{1}, 40<<20); err != nil {
		t.Fatal(err)
	}
	if err := p.verify(context.Background(), src, f, nil); err == nil || !strings.Contains(err.Error(), "broken") {
		t.Errorf("an altered byte: %v", err)
	}
}

// TestReadsTheDisk: what was just written is still in memory, and yet it is the disk
// that is read back.
func TestReadsTheDisk(t *testing.T) {
	source, disk := img(t), blank(t, 200<<20)
	var fs unix.Statfs_t
	if err := unix.Statfs(disk, &fs); err != nil {
		t.Fatal(err)
	}
	if fs.Type == unix.TMPFS_MAGIC {
		t.Skip("SKIP TestReadsTheDisk: the folder for temporary files is in memory, there is no disk to read; qemu/media TestFlash does it on one")
	}
	p, err := Look(t.Context(), source, disk, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	before := int64(-1)
	err = p.Write(t.Context(), func(step string, done, total int64) {
		if step == "writing" && done == total {
			before = diskReads(t)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := diskReads(t)-before, p.Size*9/10; before < 0 || got < want {
		t.Errorf("%d bytes came from a disk while %d were read back", got, p.Size)
	}
}

// diskReads is how many bytes this process had fetched from disks so far.
func diskReads(t *testing.T) int64 {
	t.Helper()
	b, err := os.ReadFile("/proc/self/io")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nread_bytes: ")
	number, _, _ := strings.Cut(rest, "\n")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil {
		t.Fatalf("%v in %s", err, b)
	}
	return n
}

// TestCancelled: half a write leaves no disk that anybody would boot.
func TestCancelled(t *testing.T) {
	source, disk := img(t), blank(t, 200<<20)
	p, err := Look(t.Context(), source, disk, "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	err = p.Write(ctx, func(_ string, done, _ int64) {
		if done > 10<<20 {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "half-written") || !strings.Contains(err.Error(), "flash it again") {
		t.Fatal(err)
	}
	if _, err := image.Open(disk); !errors.Is(err, image.ErrMedium) {
		t.Errorf("half a disk opens: %v", err)
	}
}

// TestCancelledAtTheEnd: the disk boots by then, but nobody has seen that it does.
func TestCancelledAtTheEnd(t *testing.T) {
	p, err := Look(t.Context(), img(t), blank(t, 200<<20), "", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	err = p.Write(ctx, func(step string, _, _ int64) {
		if step == "verifying" {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), "was not read back") || strings.Contains(err.Error(), "half-written") {
		t.Error(err)
	}
}

func TestAdvise(t *testing.T) {
	const somebody, root = 1000, 0
	for _, c := range []struct {
		err  error
		uid  int
		says string
	}{
		{unix.EACCES, somebody, "with sudo"}, {unix.EPERM, somebody, "with sudo"}, {unix.EBUSY, somebody, "unmount it"}, {unix.EIO, somebody, "input/output error"},
		{unix.EACCES, root, "root may not either"}, {unix.EPERM, root, "root may not either"}, {unix.EBUSY, root, "unmount it"},
	} {
		got := advise(&os.PathError{Op: "open", Path: "/dev/sdx", Err: c.err}, c.uid)
		if !errors.Is(got, c.err) || !strings.Contains(got.Error(), "/dev/sdx") || !strings.Contains(got.Error(), c.says) || c.uid == root && strings.Contains(got.Error(), "sudo") {
			t.Errorf("%v for %d: %v", c.err, c.uid, got)
		}
	}
}

// TestDescribe reads a made-up sysfs.
func TestDescribe(t *testing.T) {
	sys := t.TempDir()
	for name, text := range map[string]string{
		"class/block/sdz/device/model": "Stick \n", "class/block/sdz/device/wwid": "t10.X\n", "class/block/sdz/dev": "8:0\n",
		"class/block/sdz/sdz1/partition": "1\n", "class/block/sdz1/partition": "1\n", "class/block/sdz1/dev": "8:1\n", "class/block/sdz1/holders/dm-0": "",
	} {
		p := filepath.Join(sys, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(p, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	dev := t.TempDir()
	for _, n := range []string{"sdz", "sdz1"} {
		if err := os.WriteFile(filepath.Join(dev, n), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	d := Device{Path: filepath.Join(dev, "sdz")}
	if err := d.describe(sys, "36 1 8:1 / /mnt rw - vfat /dev/sdz1 rw\n37 1 8:2 / /other rw\n"); err != nil {
		t.Fatal(err)
	}
	if d.Model != "Stick" || d.Serial != "t10.X" || d.InUse != "sdz1 by dm-0, sdz1 mounted on /mnt" {
		t.Errorf("%+v", d)
	}
	d = Device{Path: filepath.Join(dev, "sdz1")}
	if err := d.describe(sys, ""); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "whole disk") {
		t.Errorf("a partition: %v", err)
	}
}

// TestNoDisk: what is neither disk nor file is not even opened; a pipe without a
// writer would hold whoever does.
func TestNoDisk(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/dev/null", t.TempDir(), pipe} {
		if _, err := look(t.Context(), path, t.TempDir(), "", 0, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "the whole disk, such as /dev/sdb") {
			t.Errorf("%s: %v", path, err)
		}
	}
}
