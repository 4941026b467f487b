// SPDX-License-Identifier: Apache-2.0

// Package plan turns a signed deployment into exactly what a node does for it:
// one VM configuration and one guest configuration per machine, the network,
// the volumes. Make is a pure function of the spec, the images' manifests and
// the facts of the node; nothing is decided after it.
//
// Digest names a plan with everything that is the node's own (paths, numbers
// of bridges and taps, vsock ids) replaced by what it stands for. The same
// spec therefore has the same digest on every node, and the records of two
// nodes can be compared.
package plan

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/volumes"
	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// Facts are what a plan takes from the node.
type Facts struct {
	Deployment int64  // log index of the deployment
	Digest     string // of the spec's bytes
	// Slot is a small number that no other deployment on the node has; names
	// and numbers of links and vsock ids come from it.
	Slot    int
	RunDir  string // VM directories and volumes are below
	Content Content
}

// Content says where verified content stands on the node.
type Content interface {
	BlobPath(digest string) string
	ImagePath(id string) string
}

// Plan is everything that a node does for one deployment.
type Plan struct {
	Machines []Machine        `json:"machines"` // in start order: each after those that it depends on
	Network  network.Plan     `json:"network"`
	Volumes  []volumes.Volume `json:"volumes"`
}

// Machine is one VM and its guest.
type Machine struct {
	Name      string       `json:"name"`
	VM        vm.Config    `json:"vm"`
	Taps      []string     `json:"taps"` // names, in the order of VM.NICs
	Guest     wire.Config  `json:"guest"`
	Kernel    string       `json:"kernel"`    // digest
	Initramfs string       `json:"initramfs"` // digest
	Image     string       `json:"image"`     // Zero-Image id
	Verity    Verity       `json:"verity"`
	DependsOn []string     `json:"dependsOn"`
	Failure   spec.Failure `json:"failure"`
}

// Verity is what the guest's root must be.
type Verity struct {
	Root   string `json:"root"`   // 64 hex digits
	Blocks int64  `json:"blocks"` // data blocks; the hash tree starts right behind
}

const (
	mtu = 1500
	// perSlot bounds what one deployment can have of each kind (spec allows at
	// most 16 machines with 8 interfaces each).
	perSlot  = 256
	firstCID = 16
	block    = 4096
	maxLabel = 40
)

// Make plans. manifests has the manifest of every image id of the spec.
func Make(d *spec.Deployment, manifests map[string]zimage.Manifest, f Facts) (*Plan, error) {
	p := &Plan{Machines: []Machine{}, Volumes: []volumes.Volume{}}
	for _, v := range d.Volumes {
		p.Volumes = append(p.Volumes, volumes.Volume{Name: v.Name, SizeMiB: v.SizeMiB, Filesystem: v.Filesystem,
			Path: filepath.Join(volumes.Dir(f.RunDir), strconv.FormatInt(f.Deployment, 10), v.Name+".raw")})
	}
	nets, err := Networks(d, f)
	if err != nil {
		return nil, err
	}
	p.Network = *nets
	names := order(d)
	if len(names) != len(d.Machines) {
		return nil, fmt.Errorf("the machines beside %q depend on each other in a circle", names)
	}
	for _, name := range names {
		i := slices.IndexFunc(d.Machines, func(m spec.Machine) bool { return m.Name == name })
		m, err := machine(d, i, p, manifests, f)
		if err != nil {
			return nil, fmt.Errorf("machine %s: %w", name, err)
		}
		p.Machines = append(p.Machines, *m)
	}
	return p, nil
}

// order lists the machines so that each stands after all that it depends on,
// else as in the spec. Those of a circle, which spec refuses, are left out.
func order(d *spec.Deployment) []string {
	var out []string
	for len(out) < len(d.Machines) {
		before := len(out)
		for _, m := range d.Machines {
			if slices.Contains(out, m.Name) || slices.ContainsFunc(m.DependsOn, func(n string) bool { return !slices.Contains(out, n) }) {
				continue
			}
			out = append(out, m.Name)
		}
		if len(out) == before {
			return out
		}
	}
	return out
}

// MAC derives a locally administered unicast address: the same everywhere for
// the same interface of the same spec, and not to be chosen by anybody.
func MAC(digest string, words ...string) string {
	sum := sha256.Sum256([]byte("zos mac v1\x00" + digest + "\x00" + strings.Join(words, "\x00")))
	hw := net.HardwareAddr(sum[:6])
	hw[0] = hw[0]&^1 | 2
	return hw.String()
}

// Networks plans the network alone, for asking whether it could stand here.
func Networks(d *spec.Deployment, f Facts) (*network.Plan, error) {
	p := &network.Plan{Networks: []network.Network{}, Gateways: []network.Gateway{}}
	tap, macs := 0, map[string]bool{}
	for i, n := range d.Networks {
		subnet, err := netip.ParsePrefix(n.Subnet)
		if err != nil {
			return nil, fmt.Errorf("network %s: %w", n.Name, err)
		}
		out := network.Network{Name: n.Name, Bridge: fmt.Sprintf("zb%d", f.Slot*perSlot+i), MAC: MAC(f.Digest, "bridge", n.Name),
			Host: netip.PrefixFrom(subnet.Addr().Next(), subnet.Bits()), Outbound: n.Isolation == "outbound", MTU: mtu, Taps: []network.Tap{}}
		macs[out.MAC] = true
		for _, m := range d.Machines {
			for _, itf := range m.Interfaces {
				if itf.Network != n.Name {
					continue
				}
				addr, err := netip.ParseAddr(itf.Address)
				if err != nil {
					return nil, fmt.Errorf("machine %s in network %s: %w", m.Name, n.Name, err)
				}
				mac := MAC(f.Digest, "tap", m.Name, n.Name)
				if macs[mac] || tap == perSlot {
					return nil, fmt.Errorf("machine %s in network %s: MAC %s is taken, or the deployment has more than %d interfaces", m.Name, n.Name, mac, perSlot)
				}
				macs[mac] = true
				out.Taps = append(out.Taps, network.Tap{Machine: m.Name, Name: fmt.Sprintf("zt%d", f.Slot*perSlot+tap), MAC: mac, Address: addr})
				tap++
			}
		}
		p.Networks = append(p.Networks, out)
	}
	for _, g := range d.Gateways {
		n, t, err := find(p, g.Network, g.Machine)
		if err != nil {
			return nil, fmt.Errorf("gateway %s: %w", g.Name, err)
		}
		p.Gateways = append(p.Gateways, network.Gateway{Name: g.Name, Protocol: g.Protocol, Port: uint16(g.Port), Bridge: n.Bridge,
			Target: netip.AddrPortFrom(t.Address, uint16(g.TargetPort)), Masquerade: defaultNetwork(d, g.Machine) != g.Network})
	}
	return p, nil
}

func find(p *network.Plan, netName, machine string) (*network.Network, *network.Tap, error) {
	for i := range p.Networks {
		for j := range p.Networks[i].Taps {
			if p.Networks[i].Name == netName && p.Networks[i].Taps[j].Machine == machine {
				return &p.Networks[i], &p.Networks[i].Taps[j], nil
			}
		}
	}
	return nil, nil, fmt.Errorf("machine %s has no interface in network %s", machine, netName)
}

// defaultNetwork is the network over which a machine's default route leads:
// the first of its interfaces that has anything to do with the outside, be it
// that it may open connections or that a gateway leads to it. "" is none.
func defaultNetwork(d *spec.Deployment, machine string) string {
	for _, m := range d.Machines {
		if m.Name != machine {
			continue
		}
		for _, itf := range m.Interfaces {
			for _, n := range d.Networks {
				if n.Name == itf.Network && n.Isolation == "outbound" {
					return n.Name
				}
			}
			for _, g := range d.Gateways {
				if g.Machine == machine && g.Network == itf.Network {
					return itf.Network
				}
			}
		}
	}
	return ""
}

func machine(d *spec.Deployment, index int, p *Plan, manifests map[string]zimage.Manifest, f Facts) (*Machine, error) {
	s := d.Machines[index]
	m, ok := manifests[s.Image.ID]
	if !ok {
		return nil, fmt.Errorf("no manifest of image %s", s.Image.ID)
	}
	if m.Verity.Root != s.Image.VerityRoot || m.Verity.HashStart*block != m.DataSize {
		return nil, fmt.Errorf("manifest of image %s has verity root %s at block %d of %d bytes, the spec wants root %s", s.Image.ID, m.Verity.Root, m.Verity.HashStart, m.DataSize, s.Image.VerityRoot)
	}
	label := s.Name[:min(len(s.Name), maxLabel)]
	id := fmt.Sprintf("d%dm%d-%s", f.Deployment, index, label)
	out := &Machine{Name: s.Name, Kernel: s.Kernel, Initramfs: s.Initramfs, Image: s.Image.ID, DependsOn: s.DependsOn, Failure: s.Failure, Taps: []string{},
		Verity: Verity{m.Verity.Root, m.Verity.HashStart},
		VM: vm.Config{ID: id, Dir: filepath.Join(f.RunDir, "vm", id), VCPUs: int(s.VCPUs), MemoryMiB: int(s.MemoryMiB),
			Kernel: f.Content.BlobPath(s.Kernel), Initramfs: f.Content.BlobPath(s.Initramfs),
			Cmdline: strings.TrimSpace(fmt.Sprintf("%s zos.verity=%s,%d", s.Cmdline, m.Verity.Root, m.Verity.HashStart)),
			Disks:   []vm.Disk{{Path: f.Content.ImagePath(s.Image.ID), ReadOnly: true, Serial: "root"}}, NICs: []vm.NIC{},
			CID: uint32(firstCID + f.Slot*perSlot + index)}}
	for _, mt := range s.Mounts {
		if mt.Type != "volume" {
			continue
		}
		v := slices.IndexFunc(p.Volumes, func(v volumes.Volume) bool { return v.Name == mt.Volume })
		if v < 0 {
			return nil, fmt.Errorf("mount %s: no volume %s", mt.Path, mt.Volume)
		}
		out.VM.Disks = append(out.VM.Disks, vm.Disk{Path: p.Volumes[v].Path, ReadOnly: mt.ReadOnly, Serial: serial(mt.Volume)})
	}
	for _, itf := range s.Interfaces {
		_, t, err := find(&p.Network, itf.Network, s.Name)
		if err != nil {
			return nil, err
		}
		out.VM.NICs = append(out.VM.NICs, vm.NIC{TapName: t.Name, MAC: t.MAC, MTU: mtu})
		out.Taps = append(out.Taps, t.Name)
	}
	guest, err := guestConfig(d, s, p)
	if err != nil {
		return nil, err
	}
	out.Guest = *guest
	return out, nil
}

func serial(volume string) string { return "vol-" + volume }
