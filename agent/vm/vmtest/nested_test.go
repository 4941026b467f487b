// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/modules"
	rig "github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// Outer boots the suite; both hypervisors are in it where both are to be had.
const (
	bootLimit = 18 * time.Minute
	// attackLimit is for all attacks, one VM each: on two processors with a load
	// average of 15 half of them were done after bootLimit.
	attackLimit = 55 * time.Minute
	memoryMiB   = 2048
)

// TestNested boots a machine in which TestDrivers runs, and passes its
// judgement on, case by case.
func TestNested(t *testing.T) {
	if os.Getenv("ZOS_VMTEST") == "inside" {
		t.Skip("SKIP nested: this is inside")
	}
	if testing.Short() {
		t.Skip("SKIP nested: -short")
	}
	for _, tool := range []string{rig.Binary, "mkfs.ext4"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP nested: %v", err)
		}
	}
	within := bootLimit
	if os.Getenv("ZOS_VMTEST") == "attacks" {
		within = attackLimit
	}
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	b := &bench{T: t, dir: t.TempDir(), ctx: ctx}
	kernelFile, initrd := b.build()
	console, fault := b.boot(kernelFile, initrd)
	if fault {
		console, fault = b.boot(kernelFile, initrd)
	}
	if fault {
		b.Error("a kernel died of the emulator twice")
	}
	b.judge(console)
}

// bench builds the outer machine.
type bench struct {
	*testing.T
	dir string
	ctx context.Context
}

func (b *bench) must(err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}

// parts are Debian's, from the cache of builds or the network.
func (b *bench) source() *kernel.Source {
	s, err := kernel.Open(kernel.Options{
		Cache: "../../../build/cache/debian", Lock: "../../../kernel/debian.lock", WorkLock: filepath.Join(b.dir, "debian.lock"),
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	b.must(err)
	return s
}

func (b *bench) build() (kernelFile, initrd string) {
	source := b.source()
	linux, err := source.Linux(b.ctx, "linux-image-cloud-amd64")
	b.must(err)
	tree := image.NewTree()
	tree.File("init", 0o755, b.testBinary())
	set := modules.Set{Name: "vmtest", Wants: []modules.Want{
		{Name: "kvm_amd", Why: "guests"}, {Name: "kvm_intel", Why: "guests"}, {Name: "vhost_vsock", Why: "the guest's connection"}, {Name: "tun", Why: "the guest's network"},
	}}
	chosen, err := linux.Tree.Choose(set)
	b.must(err)
	for i, m := range chosen {
		tree.File(fmt.Sprintf("modules/%03d-%s.ko", i, m.Name), 0o644, m.Data)
	}
	b.hypervisors(source, tree)
	b.guest(linux, tree)
	cpio, err := tree.CPIO()
	b.must(err)
	kernelFile, initrd = filepath.Join(b.dir, "vmlinuz"), filepath.Join(b.dir, "initrd")
	b.must(os.WriteFile(kernelFile, linux.Image, 0o600))
	b.must(os.WriteFile(initrd, cpio, 0o600))
	b.Logf("outer machine: kernel %s, %d modules, initramfs %d MiB", linux.Release, len(chosen), len(cpio)>>20)
	return kernelFile, initrd
}

func (b *bench) program(pkg string) []byte {
	out, err := image.Program{Package: pkg}.Build(b.ctx, ".")
	b.must(err)
	return out
}

// testBinary is this package again, to run inside.
func (b *bench) testBinary() []byte {
	name := filepath.Join(b.dir, "test")
	cmd := exec.CommandContext(b.ctx, "go", "test", "-c", "-trimpath", "-ldflags=-s -w", "-o", name, ".")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH=amd64")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build the test: %v\n%s", err, out)
	}
	content, err := os.ReadFile(name)
	b.must(err)
	return content
}

func (b *bench) hypervisors(source *kernel.Source, tree *image.Tree) {
	cache, err := source.CacheFile()
	b.must(err)
	h, err := source.CloudHypervisor(b.ctx, kernel.HypervisorOptions{Local: os.Getenv("CLOUD_HYPERVISOR"), Cache: cache})
	switch {
	case err == nil:
		for _, f := range h.Files {
			tree.File(strings.TrimPrefix(chPath, "/"), 0o755, f.Data)
		}
		b.Logf("cloud-hypervisor %s, %s", h.Version, h.Source)
	case errors.Is(err, fs.ErrNotExist):
		b.Logf("no cloud-hypervisor: %v", err)
	default:
		b.Fatal(err)
	}
	q, err := source.DebianQEMU(b.ctx)
	b.must(err)
	for _, f := range q.Files {
		if f.Link != "" {
			tree.Symlink(strings.TrimPrefix(f.Path, "/"), f.Link)
			continue
		}
		tree.File(strings.TrimPrefix(f.Path, "/"), f.Mode, f.Data)
	}
	b.Logf("qemu %s", q.Version)
}

// guest puts the guest's kernel, initramfs, root disk and volume in.
func (b *bench) guest(linux *kernel.Linux, tree *image.Tree) {
	initramfs, chosen, err := image.Guest(linux, b.program("github.com/zos-node/zos/guest"))
	b.must(err)
	b.Logf("guest: %d modules, initramfs %d KiB", len(chosen), len(initramfs)>>10)
	disk, p := b.rootDisk()
	info, err := json.Marshal(p)
	b.must(err)
	volume := filepath.Join(b.dir, "volume")
	b.must(os.WriteFile(volume, nil, 0o600))
	b.must(os.Truncate(volume, 8<<20))
	if out, err := exec.CommandContext(b.ctx, "mkfs.ext4", "-q", "-F", "-m", "0", volume).CombinedOutput(); err != nil {
		b.Fatalf("mkfs.ext4: %v\n%s", err, out)
	}
	content, err := os.ReadFile(volume)
	b.must(err)
	for name, data := range map[string][]byte{"vmlinuz": linux.Image, "initramfs": initramfs, "root.img": disk, "parts.json": info, "volume.img": content} {
		tree.File(strings.TrimPrefix(partsDir, "/")+"/"+name, 0o444, data)
	}
}

// marker fills /marked in the image, to be found again in the disk.
var marker = bytes.Repeat([]byte("zos vmtest: this block will be damaged. "), 2000)

// rootDisk makes an OCI image and of that, as anybody would, a Zero-Image.
func (b *bench) rootDisk() ([]byte, parts) {
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	for _, f := range []struct {
		name string
		mode int64
		data []byte
	}{{"app", 0o755, b.program("github.com/zos-node/zos/agent/vm/vmtest/workload")}, {"from-image", 0o644, []byte("of the image\n")}, {"marked", 0o644, marker}} {
		b.must(w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: f.name, Mode: f.mode, Size: int64(len(f.data))}))
		_, err := w.Write(f.data)
		b.must(err)
	}
	b.must(w.Close())
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	b.must(err)
	img, err := mutate.AppendLayers(empty.Image, l)
	b.must(err)
	img, err = mutate.ConfigFile(img, configured(img, b))
	b.must(err)
	dir := filepath.Join(b.dir, "oci")
	index, err := layout.Write(dir, empty.Index)
	b.must(err)
	b.must(index.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"})))

	src, err := oci.OpenSource("oci:" + dir)
	b.must(err)
	store, err := zimage.OpenStore(filepath.Join(b.dir, "store"))
	b.must(err)
	m, id, err := zimage.Convert(b.ctx, src, "linux/amd64", store, nil)
	b.must(err)
	mirror := httptest.NewServer(zimage.Handler(store))
	defer mirror.Close()
	name := filepath.Join(b.dir, "root.img")
	fetcher := zimage.Fetcher{Mirrors: []string{mirror.URL}, HTTP: mirror.Client(), Log: slog.New(slog.NewTextHandler(io.Discard, nil))}
	_, err = fetcher.Image(b.ctx, m, id, name)
	b.must(err)
	disk, err := os.ReadFile(name)
	b.must(err)
	at := bytes.Index(disk, marker)
	if at < 0 {
		b.Fatal("the marked file is not found in the disk")
	}
	return disk, parts{Verity: m.Verity.Root, Blocks: m.Verity.HashStart, Marker: int64(at+8191) &^ 4095, Attacks: os.Getenv("ZOS_VMTEST") == "attacks"}
}

func configured(img v1.Image, b *bench) *v1.ConfigFile {
	c, err := img.ConfigFile()
	b.must(err)
	c = c.DeepCopy()
	c.OS, c.Architecture = "linux", "amd64"
	c.Config.Entrypoint = []string{"/app"}
	return c
}

// boot runs the outer machine to its end. fault says that the emulator, not
// the test, brought it down.
func (b *bench) boot(kernelFile, initrd string) (lines []string, fault bool) {
	accel := rig.Probe(b.ctx, rig.Binary)
	b.Logf("accelerator: %s (%s)", accel.Name, accel.Why)
	// One processor: KVM patches its own code whenever a virtual processor's
	// interrupt controller starts, and what another emulated processor then
	// sees may be torn. One VM is lucky, twenty in a row are not.
	m, err := rig.Start(rig.Options{Accel: accel, CPUs: 1, MemoryMiB: memoryMiB, Kernel: kernelFile, Initrd: initrd, Log: os.Getenv("ZOS_VMTEST_LOG"),
		Cmdline: "console=ttyS0 quiet loglevel=3 panic=-1"})
	b.must(err)
	defer func() {
		if err := m.Close(); err != nil {
			b.Errorf("close the machine: %v", err)
		}
	}()
	if err := m.Wait(b.ctx); err != nil {
		b.Errorf("outer machine: %v", err)
	}
	if fault = m.EmulatorFault(); fault {
		b.Logf("the outer machine died of the emulator:\n%s", m.Console.Tail(25))
	}
	for _, l := range m.Console.Lines(0) {
		lines = append(lines, l.Text)
		if accel.Name == "tcg" && torn.MatchString(l.Text) {
			b.Logf("a guest's kernel died of the emulator: %s", l.Text)
			fault = true
		}
	}
	return lines, fault
}

// torn is how a guest's kernel dies of the emulator, one level down, before it
// has started anything: a return from an interrupt that faults while the
// kernel patches itself. A case that fails prints its guest's console.
var torn = regexp.MustCompile(`\[ *0\.\d+\] RIP: 0010:text_poke_early\+`)

var result = regexp.MustCompile(`^\s*--- (PASS|FAIL|SKIP): TestDrivers/(\S+) \((\S+)\)`)

// judge makes a subtest of each case inside.
func (b *bench) judge(lines []string) {
	cases, exit := 0, ""
	for _, line := range lines {
		b.Log(line)
		if rest, ok := strings.CutPrefix(line, exitLine); ok {
			exit = rest
		}
		if g := result.FindStringSubmatch(line); g != nil {
			cases++
			b.Run(g[2], func(t *testing.T) {
				switch g[1] {
				case "FAIL":
					t.Errorf("failed inside after %s", g[3])
				case "SKIP":
					t.Skipf("SKIP %s: no binary; set CLOUD_HYPERVISOR=/path", g[2])
				}
			})
		}
	}
	if exit != "0" || cases == 0 {
		b.Errorf("inside: exit %q, %d cases", exit, cases)
	}
}
