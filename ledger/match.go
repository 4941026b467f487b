// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/zos-node/zos/spec"
)

// Free is what a node has left, or with Used what it has given away.
type Free struct {
	VCPUs      int64            `json:"vcpus"`
	MemoryMiB  int64            `json:"memoryMiB"`
	StorageMiB int64            `json:"storageMiB"`
	Ports      map[int64]string `json:"ports"` // gateway ports that are taken, by which deployment
}

// Use is what claims on a node have reserved.
type Use struct {
	VCPUs      int64            `json:"vcpus"`
	MemoryMiB  int64            `json:"memoryMiB"`
	StorageMiB int64            `json:"storageMiB"`
	Ports      map[int64]string `json:"ports"`
	IDs        []int64          `json:"claims"`
}

// needs adds up what a deployment reserves on one node.
func needs(d *spec.Deployment) Use {
	u := Use{Ports: map[int64]string{}}
	for _, m := range d.Machines {
		u.VCPUs += m.VCPUs
		u.MemoryMiB += m.MemoryMiB
	}
	for _, v := range d.Volumes {
		u.StorageMiB += v.SizeMiB
	}
	for _, g := range d.Gateways {
		u.Ports[g.Port] = d.Metadata.Name
	}
	return u
}

func (u Use) plus(n Use) Use {
	sum := Use{u.VCPUs + n.VCPUs, u.MemoryMiB + n.MemoryMiB, u.StorageMiB + n.StorageMiB, map[int64]string{}, slices.Concat(u.IDs, n.IDs)}
	maps.Copy(sum.Ports, u.Ports)
	maps.Copy(sum.Ports, n.Ports)
	return sum
}

func (u Use) minus(claim int64, n Use) Use {
	rest := Use{u.VCPUs - n.VCPUs, u.MemoryMiB - n.MemoryMiB, u.StorageMiB - n.StorageMiB, maps.Clone(u.Ports), slices.Clone(u.IDs)}
	maps.DeleteFunc(rest.Ports, func(port int64, _ string) bool { _, gone := n.Ports[port]; return gone })
	rest.IDs = slices.DeleteFunc(rest.IDs, func(id int64) bool { return id == claim })
	return rest
}

// Free is what the node has left for claims: nothing, if it has come to have
// less than its claims reserved.
func (n *Node) Free() Free {
	f := n.free()
	f.Ports = maps.Clone(f.Ports)
	return f
}

// free is Free for who only reads it.
func (n *Node) free() Free {
	f := Free{Ports: n.Used.Ports}
	if n.Capacity != nil {
		f.VCPUs, f.MemoryMiB, f.StorageMiB = max(n.Capacity.VCPUs-n.Used.VCPUs, 0), max(n.Capacity.MemoryMiB-n.Used.MemoryMiB, 0), max(n.Capacity.StorageMiB-n.Used.StorageMiB, 0)
	}
	return f
}

// Match says what is against running a deployment on a node, in words for
// people; nothing means that it fits.
func (s *State) Match(d *Deployment, node *Node) []string { return s.match(d, needs(d.Spec), node) }

func (s *State) match(d *Deployment, need Use, node *Node) []string {
	if node.Capacity == nil {
		return []string{"node has not published its capacity"}
	}
	reasons := misfits(d.Spec, need, node.Capacity, node.Labels, node.free())
	if s.Revoked(node.ID) != nil {
		reasons = append(reasons, "node's key was revoked")
	}
	if node.Lost {
		reasons = append(reasons, "node let its last lease run out and was not heard from since")
	}
	return reasons
}

// Match compares a spec with what a node offers, has on its label, and has
// free. It is pure: the same input gives the same reasons in the same order.
func Match(d *spec.Deployment, c *Capacity, labels map[string]string, free Free) []string {
	return misfits(d, needs(d), c, labels, free)
}

func misfits(d *spec.Deployment, need Use, c *Capacity, labels map[string]string, free Free) []string {
	var reasons []string
	against := func(format string, args ...any) { reasons = append(reasons, fmt.Sprintf(format, args...)) }
	if d.Placement.Arch != c.Arch {
		against("needs arch %s, node has %s", d.Placement.Arch, c.Arch)
	}
	for _, k := range slices.Sorted(maps.Keys(d.Placement.Labels)) {
		want := d.Placement.Labels[k]
		if have, ok := labels[k]; !ok {
			against("needs label %s=%s, node has no label %s", k, want, k)
		} else if have != want {
			against("needs label %s=%s, node has %s=%s", k, want, k, have)
		}
	}
	for _, m := range d.Machines {
		if m.Hypervisor != "any" && m.Hypervisor != c.Hypervisor.Name {
			against("machine %s needs hypervisor %s, node has %s", m.Name, m.Hypervisor, c.Hypervisor.Name)
		}
	}
	if need.VCPUs > free.VCPUs {
		against("needs %d vCPUs, node has %d free", need.VCPUs, free.VCPUs)
	}
	if need.MemoryMiB > free.MemoryMiB {
		against("needs %d MiB memory, node has %d MiB free", need.MemoryMiB, free.MemoryMiB)
	}
	if need.StorageMiB > free.StorageMiB {
		against("needs %d MiB storage, node has %d MiB free", need.StorageMiB, free.StorageMiB)
	}
	for _, port := range slices.Sorted(maps.Keys(need.Ports)) {
		if by, taken := free.Ports[port]; taken {
			against("needs gateway port %d, deployment %s has it on the node", port, by)
		}
	}
	if len(d.Gateways) > 0 && len(c.Addresses) == 0 {
		against("has gateways, node publishes no address")
	}
	return reasons
}

func join(reasons []string) string { return strings.Join(reasons, "; ") }
