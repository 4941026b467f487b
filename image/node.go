// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"path"
	"strings"

	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/modules"
)

// Node is what the node's initramfs holds.
type Node struct {
	Linux      *kernel.Linux
	Sets       []string // module sets
	Drivers    []string // modules that have to be among them
	Hypervisor kernel.Hypervisor
	Firmware   []kernel.FirmwareFile
	Init       []byte
	Agent      []byte
	Fault      []byte // the fault program of test images; nil in production
	Root       []byte // trust root: an envelope
	Seed       []byte // nil: comes from elsewhere
	OSRelease  []byte
	Version    string
	Small      bool   // packed as small as it gets, whatever time that takes
	Outside    []Part // what the image has beside the initramfs
}

// Modules are those of its sets, in load order.
func (n Node) Modules() ([]modules.Module, error) {
	var sets []modules.Set
	for _, name := range n.Sets {
		s, ok := modules.Named(name)
		if !ok {
			return nil, fmt.Errorf("node initramfs: no module set %q", name)
		}
		sets = append(sets, s)
	}
	if n.Hypervisor.Name == "qemu" {
		sets = append(sets, modules.VsockSet())
	}
	chosen, err := n.Linux.Tree.Choose(append(sets, promised(n.Drivers))...)
	if err != nil {
		return nil, fmt.Errorf("node initramfs: %w", err)
	}
	return chosen, nil
}

// promised wants the drivers that a board promises. Sets list what a machine may
// have, and a kernel that has not all of it is no fault; one that lacks what
// the board is for is.
func promised(drivers []string) modules.Set {
	set := modules.Set{Name: "drivers"}
	for _, d := range drivers {
		set.Wants = append(set.Wants, modules.Want{Name: d, Why: "which the board promises (drivers in its file)"})
	}
	return set
}

// Tree is all of it, and the modules among it in load order.
func (n Node) Tree() (*Tree, []modules.Module, error) {
	chosen, err := n.Modules()
	if err != nil {
		return nil, nil, err
	}
	t := NewTree()
	ours := Origin{Name: "zos", Version: n.Version}
	t.From(FromDebian(n.Linux.Package))
	for _, d := range []string{"proc", "sys", "run", "mnt", "etc/zos", "root"} {
		t.Dir(d, 0o755)
	}
	t.Dir("tmp", 0o1777)
	dir := path.Join("lib/modules", n.Linux.Release)
	packaged := make([]modules.Module, len(chosen))
	for i, m := range chosen {
		packaged[i] = m.Packaged()
		t.File(path.Join(dir, packaged[i].Path), 0o644, packaged[i].Data)
	}
	t.From(ours)
	for name, text := range modules.Index(packaged, n.Linux.Tree.BuiltinNames()) {
		t.File(path.Join(dir, name), 0o644, text)
	}
	for _, f := range n.Firmware {
		t.From(FromDebian(f.Package))
		t.File(path.Join("lib/firmware", f.Path), 0o644, f.Data)
	}
	archive, parts, err := n.hypervisor()
	if err != nil {
		return nil, nil, err
	}
	t.Archive(kernel.HypervisorArchive[1:], archive, parts)
	t.From(ours)
	about, err := json.Marshal(n.Hypervisor)
	if err != nil {
		return nil, nil, fmt.Errorf("node initramfs: %w", err)
	}
	t.File(kernel.HypervisorPath[1:], 0o644, append(about, '\n'))
	t.File("init", 0o755, n.Init)
	t.File("bin/agent", 0o755, n.Agent)
	t.Symlink("bin/imaged", "agent") // its other name, see agent/imaged
	if n.Fault != nil {
		t.File("bin/fault", 0o755, n.Fault)
	}
	t.File("etc/os-release", 0o644, n.OSRelease)
	t.File("etc/zos/root.json", 0o644, n.Root)
	if n.Seed != nil {
		t.File("etc/zos/seed.json", 0o600, n.Seed)
	}
	t.parts = append(t.parts, n.Outside...)
	list, err := encodeParts(t.parts)
	if err != nil {
		return nil, nil, fmt.Errorf("node initramfs: %w", err)
	}
	t.File(partsPath[1:], 0o644, list)
	return t, chosen, nil
}

// hypervisor is the archive of the hypervisor's files, and what they are.
func (n Node) hypervisor() ([]byte, []Part, error) {
	t := Patch()
	for _, f := range n.Hypervisor.Files {
		t.From(FromDebian(f.Package))
		if f.Package.Name == "" {
			t.From(Origin{n.Hypervisor.Name, n.Hypervisor.Version, strings.TrimPrefix(n.Hypervisor.Digest, "sha256:")})
		}
		if f.Link != "" {
			t.Symlink(path.Clean(f.Path)[1:], f.Link)
		} else {
			t.File(path.Clean(f.Path)[1:], f.Mode, f.Data)
		}
	}
	plain, err := t.CPIO()
	if err != nil {
		return nil, nil, fmt.Errorf("hypervisor: %w", err)
	}
	pack := Zstd
	if n.Small {
		pack = zstdBest
	}
	archive, err := pack(plain)
	return archive, t.parts, err
}

// OSRelease is the os-release text of an image.
func OSRelease(version, board string) []byte {
	return fmt.Appendf(nil, "ID=zos\nNAME=zos\nPRETTY_NAME=\"zos %[1]s (%[2]s)\"\nVERSION_ID=%[1]s\nIMAGE_ID=%[2]s\nIMAGE_VERSION=%[1]s\n", version, board)
}
