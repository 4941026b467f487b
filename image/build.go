// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/modules"
)

// Version of the node's operating system, where a Request does not say another.
const Version = "0.1"

// The programs of an image.
const (
	pkgInit  = "github.com/zos-node/zos/init"
	pkgAgent = "github.com/zos-node/zos/agent"
	pkgGuest = "github.com/zos-node/zos/guest"
	pkgFault = "github.com/zos-node/zos/qemu/fault"
)

// Request says what to build.
type Request struct {
	Board  boards.Board
	Source string // folder in our module, for go build
	Parts  *kernel.Source
	Root   []byte             // trust root envelope
	Seed   []byte             // nil: none; goes to the boot partition
	Keys   *secureboot.Signer // nil: not signed; else UKI and loader are, and media enrol the keys
	// Version is the image's own, as ledger.ValidVersion wants it; Version when "".
	Version string
	Faults  bool   // a test image: init supervises the fault program
	Out     string // folder for the node's files
	Guest   string // folder for the guest's files
	// Hypervisor chooses; nil takes Cloud Hypervisor, else Debian's QEMU.
	Hypervisor func(context.Context, *kernel.Source) (kernel.Hypervisor, error)
	Log        *slog.Logger
	Progress   func(step string, done, total int)
}

// Result is build.json.
type Result struct {
	Version      string            `json:"version"`
	Board        string            `json:"board"`
	Arch         string            `json:"arch"`         // Debian's name
	Kernel       string            `json:"kernel"`       // uname -r
	KernelSource string            `json:"kernelSource"` // package and version
	GuestKernel  string            `json:"guestKernel"`
	Cmdline      string            `json:"cmdline"`
	Hypervisor   kernel.Hypervisor `json:"hypervisor"`
	Faults       bool              `json:"faults"`   // true: a test image
	PCR11        string            `json:"pcr11"`    // what a TPM's register 11 (SHA-256) holds after the boot
	SignedBy     string            `json:"signedBy"` // certificate's digest; "": not signed
	Files        map[string]Item   `json:"files"`
	Programs     map[string]Item   `json:"programs"`
	Modules      []string          `json:"modules"`      // node, load order
	GuestModules []string          `json:"guestModules"` // load order
	TookMs       map[string]int64  `json:"tookMs"`
}

// Item is one file that was made.
type Item struct {
	Size   int64  `json:"size"`
	Digest string `json:"digest"`
}

func item(b []byte) Item {
	sum := sha256.Sum256(b)
	return Item{int64(len(b)), "sha256:" + hex.EncodeToString(sum[:])}
}

// FindHypervisor is the usual choice: Cloud Hypervisor where it can be had,
// else Debian's QEMU, said loudly.
func FindHypervisor(ctx context.Context, parts *kernel.Source) (kernel.Hypervisor, error) {
	cache, err := parts.CacheFile()
	if err != nil {
		return kernel.Hypervisor{}, err
	}
	h, err := parts.CloudHypervisor(ctx, kernel.HypervisorOptions{Local: os.Getenv(kernel.Variable(parts.Arch())), Cache: cache})
	if errors.Is(err, fs.ErrNotExist) && parts.Arch() != "amd64" {
		return kernel.Hypervisor{}, fmt.Errorf("no hypervisor for %s: expected a program by %s=/path, in the cache (%s), or a download; Debian's QEMU is the second driver on amd64 only: %w",
			parts.Arch(), kernel.Variable(parts.Arch()), cache, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		parts.Log().Warn("falling back to the second driver", "part", "image", "err", err)
		h, err := parts.DebianQEMU(ctx)
		if err == nil {
			parts.Log().Warn("NO CLOUD HYPERVISOR: the image carries Debian's QEMU as its hypervisor", "part", "image", "version", h.Version, "files", len(h.Files))
		}
		return h, err
	}
	return h, err
}

// builder is one run of Build.
type builder struct {
	Request
	res   Result
	step  int
	begun time.Time
	name  string
}

const steps = 6

// next ends the running step and begins another.
func (b *builder) next(name string) {
	now := time.Now()
	if b.name != "" {
		b.res.TookMs[b.name] = now.Sub(b.begun).Milliseconds()
	}
	b.name, b.begun = name, now
	if b.Progress != nil {
		b.Progress(name, b.step, steps)
	}
	b.step++
}

// Build makes all files of a board and says what they are.
func Build(ctx context.Context, r Request) (Result, error) {
	if r.Version == "" {
		r.Version = Version
	}
	b := builder{Request: r, res: Result{
		Version: r.Version, Board: r.Board.Name, Arch: r.Board.Arch, Cmdline: Closed(r.Board.Cmdline), Faults: r.Faults,
		Files: map[string]Item{}, Programs: map[string]Item{}, TookMs: map[string]int64{},
	}}
	if b.Hypervisor == nil {
		b.Hypervisor = FindHypervisor
	}
	if err := b.build(ctx); err != nil {
		return Result{}, err
	}
	return b.res, nil
}

func (b *builder) build(ctx context.Context) error {
	b.next("packages")
	k, err := b.Parts.Linux(ctx, b.Board.Kernel)
	if err != nil {
		return err
	}
	guest := k
	if b.Board.GuestKernel != b.Board.Kernel {
		if guest, err = b.Parts.Linux(ctx, b.Board.GuestKernel); err != nil {
			return err
		}
	}
	efi, err := b.Parts.EFI(ctx)
	if err != nil {
		return err
	}
	hv, err := b.Hypervisor(ctx, b.Parts)
	if err != nil {
		return err
	}
	b.res.Kernel, b.res.KernelSource, b.res.GuestKernel, b.res.Hypervisor = k.Release, k.Package.Name+" "+k.Package.Version, guest.Release, hv

	b.next("programs")
	programs, err := b.programs(ctx)
	if err != nil {
		return err
	}

	b.next("guest initramfs")
	files, chosen, err := writeGuest(guest, programs[pkgGuest], b.Guest)
	if err != nil {
		return err
	}
	b.res.GuestModules = names(chosen)
	for n, i := range files {
		b.res.Files["guest/"+n] = i
	}

	b.next("initramfs")
	initramfs, err := b.initramfs(ctx, k, efi, hv, programs)
	if err != nil {
		return err
	}

	b.next("UKI")
	uki, err := b.uki(UKI{
		Stub: efi.Stub, OSRel: OSRelease(b.Version, b.Board.Name), Cmdline: b.res.Cmdline, Uname: k.Release, Linux: k.Image, Initrd: initramfs,
	})
	if err != nil {
		return err
	}
	loader, keys := efi.Loader, map[string][]byte(nil)
	if b.Keys != nil {
		b.res.SignedBy = item(b.Keys.DB.Cert.Raw).Digest
		keys = b.Keys.Auth
		if uki, err = b.Keys.DB.Sign(uki); err != nil {
			return fmt.Errorf("UKI: %w", err)
		}
		if loader, err = b.Keys.DB.Sign(loader); err != nil {
			return fmt.Errorf("systemd-boot: %w", err)
		}
	}
	err = errors.Join(b.write("vmlinuz", k.Image), b.write("initramfs", initramfs), b.write("node.uki", uki))
	if err != nil {
		return err
	}

	b.next("media")
	if err := b.media(Boot{Arch: b.Board.Arch, Version: b.Version, Loader: loader, UKI: uki, Seed: b.Seed, Keys: keys}); err != nil {
		return err
	}
	b.next("")
	delete(b.res.TookMs, "")
	text, err := json.MarshalIndent(b.res, "", "  ")
	if err != nil {
		return fmt.Errorf("build.json: %w", err)
	}
	return writeFile(filepath.Join(b.Out, "build.json"), append(text, '\n'))
}

// programs compiles ours. A test image differs from production in init alone:
// agent and guest are the same bytes.
func (b *builder) programs(ctx context.Context) (map[string][]byte, error) {
	runs := []Programs{{Packages: []string{pkgInit, pkgAgent, pkgGuest}, Arch: b.Board.Arch}}
	if b.Faults {
		runs = []Programs{
			{Packages: []string{pkgAgent, pkgGuest}, Arch: b.Board.Arch},
			{Packages: []string{pkgInit, pkgFault}, Tags: "faults", Arch: b.Board.Arch},
		}
	}
	all := map[string][]byte{}
	for _, r := range runs {
		built, err := r.Build(ctx, b.Source)
		if err != nil {
			return nil, err
		}
		maps.Copy(all, built)
	}
	for p, content := range all {
		b.res.Programs[filepath.Base(p)] = item(content)
	}
	return all, nil
}

// uki builds it and predicts its measurement; with keys, the prediction is
// signed and goes in, which does not change it.
func (b *builder) uki(u UKI) ([]byte, error) {
	var err error
	if b.Keys != nil {
		if u.PCRKey, err = measure.PublicKey(b.Keys.PCR); err != nil {
			return nil, err
		}
	}
	built, err := u.Build()
	if err != nil {
		return nil, err
	}
	register, err := measure.UKI(bytes.NewReader(built))
	if err != nil {
		return nil, err
	}
	b.res.PCR11 = hex.EncodeToString(register[:])
	if b.Keys == nil {
		return built, nil
	}
	if u.PCRSig, err = register.Sign(b.Keys.PCR); err != nil {
		return nil, err
	}
	return u.Build()
}

// initramfs puts the node's file system together.
func (b *builder) initramfs(ctx context.Context, k *kernel.Linux, efi *kernel.EFI, hv kernel.Hypervisor, programs map[string][]byte) ([]byte, error) {
	node := Node{
		Linux: k, Sets: b.Board.Modules, Drivers: b.Board.Drivers, Hypervisor: hv, Init: programs[pkgInit], Agent: programs[pkgAgent], Fault: programs[pkgFault],
		Root: b.Root, OSRelease: OSRelease(b.Version, b.Board.Name), Version: b.Version, Small: b.Board.Initramfs == "zstd",
	}
	var err error
	if node.Outside, err = outside(k, efi); err != nil {
		return nil, err
	}
	chosen, err := node.Modules()
	if err != nil {
		return nil, err
	}
	if len(b.Board.Firmware) > 0 {
		var asked []string
		for _, m := range chosen {
			asked = append(asked, m.Firmware...)
		}
		if node.Firmware, err = b.Parts.Firmware(ctx, b.Board.Firmware, asked); err != nil {
			return nil, err
		}
	}
	tree, _, err := node.Tree()
	if err != nil {
		return nil, err
	}
	b.res.Modules = names(chosen)
	plain, err := tree.CPIO()
	if err != nil {
		return nil, err
	}
	return packed(b.res.Hypervisor.Name, b.Board.Initramfs, plain)
}

func (b *builder) write(name string, content []byte) error {
	b.res.Files[name] = item(content)
	return writeFile(filepath.Join(b.Out, name), content)
}

func names(chosen []modules.Module) []string {
	out := make([]string, len(chosen))
	for i, m := range chosen {
		out[i] = m.Name
	}
	return out
}

// writeFile writes whole or not at all.
func writeFile(name string, content []byte) error {
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	tmp := name + ".part"
	if err := os.WriteFile(tmp, content, 0o644); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	if err := os.Rename(tmp, name); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
