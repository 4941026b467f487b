// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/zos-node/zos/spec/strict"
)

// checker keeps the first refusal, so that checks read as a list.
type checker struct{ first error }

// need refuses the field at path unless ok.
func (c *checker) need(ok bool, path, format string, args ...any) {
	if !ok && c.first == nil {
		c.first = strict.Errorf(path, format, args...)
	}
}

// What follows asks need only where something is wrong: the values in a message
// are made before it is called.

func (c *checker) enum(path, value, words string) {
	if !oneOf(value, words) {
		c.need(false, path, "is %q, want one of: %s", value, strings.Join(strings.Fields(words), ", "))
	}
}

func (c *checker) between(path string, value, low, high int64) {
	if value < low || value > high {
		c.need(false, path, "is %d, want %d to %d", value, low, high)
	}
}

func (c *checker) count(path string, n, most int) {
	if n > most {
		c.need(false, path, "has %d entries, at most %d are allowed", n, most)
	}
}

func (c *checker) label(path, value string) {
	if !IsDNSLabel(value) {
		c.need(false, path, "is %q, want a DNS label: small letters, digits and dashes, at most 63", value)
	}
}

func (c *checker) digest(path, value string) {
	if !IsDigest(value) {
		c.need(false, path, "is %q, want sha256:<64 hex>", value)
	}
}

// unique refuses the second of two equal values. seen maps each value to the
// path that had it first.
func (c *checker) unique(seen map[string]string, path, value, what string) {
	first, twice := seen[value]
	if twice {
		c.need(false, path, "is %s %q, which %s has already", what, value, first)
		return
	}
	seen[value] = path
}

func (c *checker) labels(path string, labels map[string]string) {
	c.count(path, len(labels), maxLabels)
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		at := strict.Join(path, key)
		c.need(labelKey(key), at, "is no name for a label, want small letters, digits and . _ / -, at most 63")
		c.need(len(labels[key]) <= maxLabelValue && printable(labels[key]), at, "has a value that is longer than %d bytes or has control characters", maxLabelValue)
	}
}

// Validate checks the meaning of a deployment: names, ranges, words, and
// that everything that is referred to exists. Decode calls it.
func (d *Deployment) Validate() error {
	c := &checker{}
	c.enum("apiVersion", d.APIVersion, APIVersion)
	c.enum("kind", d.Kind, Kind)
	c.label("metadata.name", d.Metadata.Name)
	c.between("metadata.version", d.Metadata.Version, 1, 1<<53)
	c.labels("metadata.labels", d.Metadata.Labels)
	c.between("placement.replicas", d.Placement.Replicas, 1, 100)
	c.enum("placement.arch", d.Placement.Arch, "amd64 arm64")
	c.labels("placement.labels", d.Placement.Labels)
	c.enum("placement.onPartition", d.Placement.OnPartition, "stop keep")
	c.networks(d)
	c.volumes(d)
	c.machines(d)
	c.gateways(d)
	c.security(d)
	return c.first
}

func (c *checker) networks(d *Deployment) {
	c.count("networks", len(d.Networks), maxNetworks)
	names := map[string]string{}
	prefixes := map[string]netip.Prefix{}
	for i, n := range d.Networks {
		at := strict.Index("networks", i)
		c.label(at+".name", n.Name)
		c.unique(names, at+".name", n.Name, "the name")
		c.enum(at+".isolation", n.Isolation, "isolated outbound")
		p, err := netip.ParsePrefix(n.Subnet)
		c.need(err == nil && p.Addr().Is4() && p.Masked().String() == n.Subnet, at+".subnet", "is %q, want an IPv4 prefix without host bits, such as 10.42.0.0/24", n.Subnet)
		if c.first != nil {
			return
		}
		c.need(p.Bits() >= 16 && p.Bits() <= 29, at+".subnet", "is a /%d, want /16 to /29", p.Bits())
		c.need(private(p), at+".subnet", "is %s, want a private one: inside 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16 or 100.64.0.0/10", n.Subnet)
		for _, other := range slices.Sorted(maps.Keys(prefixes)) {
			c.need(!prefixes[other].Overlaps(p), at+".subnet", "overlaps %s of %s", prefixes[other], other)
		}
		prefixes[at] = p
	}
}

// private says whether a subnet is of those that nobody owns. Any other one
// would take a piece of the Internet away from the node.
func private(p netip.Prefix) bool {
	for _, free := range []string{"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10"} {
		if outer := netip.MustParsePrefix(free); outer.Contains(p.Addr()) && p.Bits() >= outer.Bits() {
			return true
		}
	}
	return false
}

func (c *checker) volumes(d *Deployment) {
	c.count("volumes", len(d.Volumes), maxVolumes)
	names := map[string]string{}
	for i, v := range d.Volumes {
		at := strict.Index("volumes", i)
		c.label(at+".name", v.Name)
		c.need(len(v.Name) <= maxVolumeName, at+".name", "has %d characters, at most %d are allowed", len(v.Name), maxVolumeName)
		c.unique(names, at+".name", v.Name, "the name")
		c.between(at+".sizeMiB", v.SizeMiB, 16, 16<<20)
		c.enum(at+".filesystem", v.Filesystem, "ext4")
		c.enum(at+".encryption", v.Encryption, "none")
		c.enum(at+".atEnd", v.AtEnd, "delete")
	}
}

func (c *checker) gateways(d *Deployment) {
	c.count("gateways", len(d.Gateways), maxGateways)
	names, ports := map[string]string{}, map[string]string{}
	for i, g := range d.Gateways {
		at := strict.Index("gateways", i)
		c.label(at+".name", g.Name)
		c.unique(names, at+".name", g.Name, "the name")
		c.enum(at+".protocol", g.Protocol, "tcp")
		c.between(at+".port", g.Port, 1, 65535)
		c.between(at+".targetPort", g.TargetPort, 1, 65535)
		first, twice := ports[g.Protocol+"/"+itoa(g.Port)]
		c.need(!twice, at+".port", "is %d, which %s has already", g.Port, first)
		ports[g.Protocol+"/"+itoa(g.Port)] = at + ".port"
		c.need(d.hasNetwork(g.Network), at+".network", "is %q, which is not in networks", g.Network)
		m := slices.IndexFunc(d.Machines, func(m Machine) bool { return m.Name == g.Machine })
		c.need(m >= 0, at+".machine", "is %q, which is not in machines", g.Machine)
		if c.first == nil {
			c.need(slices.ContainsFunc(d.Machines[m].Interfaces, func(i Interface) bool { return i.Network == g.Network }),
				at+".network", "is %q, in which machine %q has no interface", g.Network, g.Machine)
		}
	}
}

func (d *Deployment) hasNetwork(name string) bool {
	return slices.ContainsFunc(d.Networks, func(n Network) bool { return n.Name == name })
}

func (c *checker) security(d *Deployment) {
	c.count("security.requiredRoles", len(d.Security.RequiredRoles), maxRoles)
	seen := map[string]string{}
	for i, role := range d.Security.RequiredRoles {
		at := strict.Index("security.requiredRoles", i)
		c.need(roleName(role), at, "is %q, want the name of a role: small letters, digits and dashes, at most 32", role)
		c.unique(seen, at, role, "the role")
	}
	c.need(d.Security.Attestation != "tpm", "security.attestation", `is "tpm", which is refused until nodes can attest; want "none"`)
	c.enum("security.attestation", d.Security.Attestation, "none")
}

// dependencies refuses machines that wait for each other.
func (c *checker) dependencies(d *Deployment) {
	index := map[string]int{}
	for i, m := range d.Machines {
		index[m.Name] = i
	}
	for i, m := range d.Machines {
		at := strict.Index("machines", i) + ".dependsOn"
		seen := map[string]string{}
		for j, name := range m.DependsOn {
			at := strict.Index(at, j)
			_, ok := index[name]
			c.need(ok, at, "is %q, which is not in machines", name)
			c.unique(seen, at, name, "the machine")
		}
	}
	if c.first != nil {
		return
	}
	done := map[string]bool{}
	var visit func(name string, way []string)
	visit = func(name string, way []string) {
		if k := slices.Index(way, name); k >= 0 {
			c.need(false, strict.Index("machines", index[name])+".dependsOn", "goes in a circle: %s", strings.Join(append(slices.Clone(way[k:]), name), " waits for "))
			return
		}
		if done[name] {
			return
		}
		for _, next := range d.Machines[index[name]].DependsOn {
			visit(next, append(slices.Clone(way), name))
		}
		done[name] = true
	}
	for _, m := range d.Machines {
		visit(m.Name, nil)
	}
}
