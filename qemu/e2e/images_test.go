// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// fillStore converts the example's images.
func (w *world) fillStore(layouts string) {
	w.t.Helper()
	var err error
	if w.store, err = zimage.OpenStore(w.path("store")); err != nil {
		w.t.Fatal(err)
	}
	w.app, w.appID = w.convert(filepath.Join(layouts, "app"))
	w.web, w.webID = w.convert(filepath.Join(layouts, "web"))
}

func (w *world) convert(layout string) (zimage.Manifest, string) {
	w.t.Helper()
	src, err := oci.OpenSource("oci:" + layout)
	if err != nil {
		w.t.Fatal(err)
	}
	m, id, err := zimage.Convert(context.Background(), src, "linux/"+w.board.Arch, w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return m, id
}

// variant puts a blob into the store that differs from one of the guest's
// files by a trailing byte: it works the same and no node has it yet.
func (w *world) variant(guest, file string, tail byte) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(guest, file))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("variant", append(b, tail))
	d, err := w.store.AddBlob(w.path("variant"))
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// addBlobs puts the guests' kernel and initramfs into the store.
func (w *world) addBlobs(guest string) {
	w.t.Helper()
	for _, f := range []string{"vmlinuz", "initramfs.cpio"} {
		d, err := w.store.AddBlob(filepath.Join(guest, f))
		if err != nil {
			w.t.Fatal(err)
		}
		w.blobs[f] = d
	}
}

// drivers are the hypervisors that nodes are tested with.
var drivers = []string{"cloud-hypervisor", "qemu"}

// anyDriver is Cloud Hypervisor where there is a binary, else QEMU.
func anyDriver(t *testing.T) string {
	if err := haveCloudHypervisor("amd64"); err != nil {
		return "qemu"
	}
	return "cloud-hypervisor"
}

// haveCloudHypervisor says why there is no binary, given or kept.
func haveCloudHypervisor(arch string) error {
	file := os.Getenv(kernel.Variable(arch))
	if file == kernel.NoCloudHypervisor {
		return fs.ErrNotExist
	}
	if file == "" {
		var err error
		if file, err = kernel.CacheFile(filepath.Join(repo, "kernel/debian.lock"), arch); err != nil {
			return err
		}
	}
	_, err := os.Stat(file)
	return err
}

// findCloudHypervisor takes a given or kept binary; tests download nothing.
func findCloudHypervisor(ctx context.Context, parts *kernel.Source) (kernel.Hypervisor, error) {
	cache, err := parts.CacheFile()
	if err != nil {
		return kernel.Hypervisor{}, err
	}
	return parts.CloudHypervisor(ctx, kernel.HypervisorOptions{Local: os.Getenv(kernel.Variable(parts.Arch())), Cache: cache})
}

// buildNode builds a test image with one driver, of image.Version where version is
// "". It returns the folder.
func (w *world) buildNode(driver, version string, seed []byte) (string, image.Result) {
	w.t.Helper()
	if driver == "cloud-hypervisor" {
		if err := haveCloudHypervisor(w.board.Arch); errors.Is(err, fs.ErrNotExist) {
			w.t.Skipf("SKIP cloud-hypervisor: no binary for %s here; %s=/path makes this case run", w.board.Arch, kernel.Variable(w.board.Arch))
		}
	}
	root, err := os.ReadFile(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	parts, err := kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Arch: w.board.Arch, Log: log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := os.MkdirTemp(w.dir, "image-")
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := image.Build(context.Background(), image.Request{
		Board: w.board, Version: version, Source: repo, Parts: parts, Root: root, Seed: seed, Faults: true, Out: out, Guest: filepath.Join(out, "guest"),
		Log: log,
		Hypervisor: func(ctx context.Context, s *kernel.Source) (kernel.Hypervisor, error) {
			if driver == "qemu" {
				return s.DebianQEMU(ctx)
			}
			return findCloudHypervisor(ctx, s)
		},
	})
	if w.board.Arch != runtime.GOARCH && errors.Is(err, exec.ErrNotFound) { // the emulator that its version is asked in
		w.t.Skipf("SKIP %s for %s: %v", driver, w.board.Arch, err)
	}
	if err != nil {
		w.t.Fatal(err)
	}
	w.addBlobs(filepath.Join(out, "guest"))
	return out, res
}

// seed composes a node's seed.
func (w *world) seed(name string, mirrors ...*mirror) []byte {
	w.t.Helper()
	args := []string{"node", "seed", "--name", name, "--ledger", w.gate.inside(), "--voucher", w.path("voucher.json"), "-o", w.path(name + ".seed"), "--replace"}
	for _, m := range mirrors {
		args = append(args, "--mirror", m.inside())
	}
	mustZos(w.t, args...)
	b, err := os.ReadFile(w.path(name + ".seed"))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) mirror() *mirror { return newMirror(w.t, zimage.Handler(w.store)) }
