// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"

	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/volumes"
)

// Normal is a copy of the plan in which every node-local name is replaced by
// what it stands for: a path by the digest or volume behind it, a bridge by
// its network, a tap by machine and network, a vsock id by the machine's
// place. Nothing else differs between two nodes.
func (p *Plan) Normal() *Plan {
	n := &Plan{Machines: make([]Machine, len(p.Machines)), Volumes: make([]volumes.Volume, len(p.Volumes))}
	paths, bridges, taps := map[string]string{}, map[string]string{}, map[string]string{}
	for i, v := range p.Volumes {
		paths[v.Path] = "volume:" + v.Name
		v.Path = paths[v.Path]
		n.Volumes[i] = v
	}
	n.Network = network.Plan{Networks: make([]network.Network, len(p.Network.Networks)), Gateways: make([]network.Gateway, len(p.Network.Gateways))}
	for i, net := range p.Network.Networks {
		bridges[net.Bridge] = "network:" + net.Name
		net.Bridge = bridges[net.Bridge]
		all := make([]network.Tap, len(net.Taps))
		for j, t := range net.Taps {
			taps[t.Name] = "tap:" + t.Machine + "/" + net.Name
			t.Name = taps[t.Name]
			all[j] = t
		}
		net.Taps = all
		n.Network.Networks[i] = net
	}
	for i, g := range p.Network.Gateways {
		g.Bridge = bridges[g.Bridge]
		n.Network.Gateways[i] = g
	}
	for i, m := range p.Machines {
		paths[m.VM.Kernel], paths[m.VM.Initramfs] = "blob:"+m.Kernel, "blob:"+m.Initramfs
		paths[m.VM.Disks[0].Path] = "image:" + m.Image
		c := m.VM
		c.ID, c.Dir, c.CID = m.Name, "vm:"+m.Name, uint32(i)
		c.Kernel, c.Initramfs = paths[c.Kernel], paths[c.Initramfs]
		disks := make([]vm.Disk, len(c.Disks))
		for j, d := range c.Disks {
			d.Path = paths[d.Path]
			disks[j] = d
		}
		nics := make([]vm.NIC, len(c.NICs))
		names := make([]string, len(m.Taps))
		for j, nic := range c.NICs {
			nic.Tap, nic.TapName = nil, taps[nic.TapName]
			nics[j], names[j] = nic, nic.TapName
		}
		c.Disks, c.NICs = disks, nics
		m.VM, m.Taps = c, names
		n.Machines[i] = m
	}
	return n
}

// Digest names the normal form.
func (p *Plan) Digest() (string, error) {
	b, err := json.Marshal(p.Normal())
	if err != nil {
		return "", fmt.Errorf("encode plan: %w", err)
	}
	sum := sha256.Sum256(b)
	return "sha256:" + hex.EncodeToString(sum[:]), nil
}
