// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/spec/strict"
)

func itoa(n int64) string { return strconv.FormatInt(n, 10) }

func (c *checker) machines(d *Deployment) {
	c.need(len(d.Machines) > 0, "machines", "is empty, want at least one")
	c.count("machines", len(d.Machines), maxMachines)
	names, mounted, addresses := map[string]string{}, map[string]string{}, map[string]string{}
	for i, m := range d.Machines {
		at := strict.Index("machines", i)
		c.label(at+".name", m.Name)
		c.unique(names, at+".name", m.Name, "the name")
		c.need(m.Name != "localhost", at+".name", "is the name by which every machine knows itself")
		c.enum(at+".hypervisor", m.Hypervisor, "any cloud-hypervisor qemu")
		c.between(at+".vcpus", m.VCPUs, 1, 64)
		c.between(at+".memoryMiB", m.MemoryMiB, 64, 1<<20)
		c.digest(at+".kernel", m.Kernel)
		c.digest(at+".initramfs", m.Initramfs)
		c.cmdline(at+".cmdline", m.Cmdline)
		c.image(at+".image", m.Image, d.Placement.Arch)
		c.process(at+".process", m.Process)
		c.mounts(at+".mounts", d, m, mounted)
		c.files(at+".files", m)
		c.interfaces(at+".interfaces", d, m, addresses)
		c.health(at+".health", m.Health)
		c.failure(at+".failure", m.Failure)
	}
	c.dependencies(d)
}

func (c *checker) cmdline(at, line string) {
	c.need(len(line) <= maxCmdline, at, "has %d bytes, at most %d are allowed", len(line), maxCmdline)
	c.need(every(line, func(b byte) bool { return alnum(b) || upper(b) || strings.IndexByte(cmdlineChars, b) >= 0 }),
		at, "has a character that is not allowed, want letters, digits and %s", strings.TrimSpace(cmdlineChars))
	c.need(strings.Join(strings.Fields(line), " ") == line, at, "has spaces at an end or twice in a row")
	for _, word := range strings.Fields(line) {
		name, _, _ := strings.Cut(word, "=")
		c.need(!strings.HasPrefix(name, "zos.") && name != "zos", at, "has the word %q: zos.* is the plan's", word)
		c.need(!oneOf(name, cmdlineOwned), at, "has the word %q, which decides what the guest boots: that is the plan's", word)
	}
}

func (c *checker) image(at string, m Image, arch string) {
	if !strings.HasPrefix(m.OCI, digestPrefix) {
		c.need(false, at+".oci", "is a tag, want sha256:<64 hex>: %q may name other bytes tomorrow", m.OCI)
	}
	c.digest(at+".oci", m.OCI)
	c.need(m.Platform == "linux/"+arch, at+".platform", "is %q, want %q as in placement.arch", m.Platform, "linux/"+arch)
	c.digest(at+".id", m.ID)
	c.need(hexDigits(m.VerityRoot), at+".verityRoot", "is %q, want 64 hex digits", m.VerityRoot)
}

// argv is a command: args[0] is a clean absolute path, or a bare name for
// which there is a PATH to search.
func (c *checker) argv(at string, args []string, hasPath bool) {
	c.count(at, len(args), maxArgs)
	c.need(len(args) > 0, at, "is empty, want the program and its arguments")
	if c.first != nil {
		return
	}
	program := args[0]
	c.need(absolute(program) && program != "/" || program != "" && !strings.Contains(program, "/") && printable(program),
		at+"[0]", "is %q, want an absolute clean path, or a name without slash", program)
	c.need(path.IsAbs(program) || hasPath, at+"[0]", "is %q, want an absolute path: there is no PATH in which to look for it", program)
}

func (c *checker) process(at string, p Process) {
	c.argv(at+".args", p.Args, p.Env["PATH"] != "")
	c.count(at+".env", len(p.Env), maxEnv)
	for name := range p.Env {
		// Only the first in the order of keys is to be reported.
		if !envName(name) {
			c.need(false, at+".env", "has a name that no environment variable can have: letters, digits and _ . - are allowed, no digit first")
		}
	}
	c.need(absolute(p.Cwd), at+".cwd", "is %q, want an absolute clean path", p.Cwd)
	uid, gid, ok := strings.Cut(p.User, ":")
	c.need(ok && isID(uid) && isID(gid), at+".user", `is %q, want numbers as "uid:gid", such as "1000:1000"`, p.User)
	seen := map[string]string{}
	for i, name := range p.Capabilities {
		at := strict.Index(at+".capabilities", i)
		c.need(oneOf(name, capabilities), at, "is %q, which is no capability of Linux, want such as CAP_NET_BIND_SERVICE", name)
		c.unique(seen, at, name, "the capability")
	}
	c.enum(at+".stopSignal", p.StopSignal, stopSignals)
	c.between(at+".stopGraceMs", p.StopGraceMs, 0, maxStopGraceMs)
}

func isID(s string) bool {
	n, err := strconv.ParseInt(s, 10, 64)
	return err == nil && n >= 0 && n <= maxID && itoa(n) == s
}

// place checks a path that something is put on inside the guest.
func (c *checker) place(at, p string) {
	c.need(absolute(p) && p != "/", at, "is %q, want an absolute clean path below /", p)
	for _, dir := range strings.Fields(reservedDirs) {
		c.need(p != dir && !below(p, dir), at, "is %q: %s is the kernel's", p, dir)
	}
}

func (c *checker) mounts(at string, d *Deployment, m Machine, mounted map[string]string) {
	c.count(at, len(m.Mounts), maxMounts)
	paths := map[string]string{}
	for i, t := range m.Mounts {
		at := strict.Index(at, i)
		c.enum(at+".type", t.Type, "tmpfs volume")
		c.place(at+".path", t.Path)
		c.unique(paths, at+".path", t.Path, "the path")
		for j, later := range m.Mounts[i+1:] {
			c.need(!below(t.Path, later.Path), at+".path", "is %q, which mounts[%d] at %q would hide: list the outer one first", t.Path, i+1+j, later.Path)
		}
		c.need(octal(t.Mode, '3'), at+".mode", "is %q, want four octal digits, at most 3777, such as 0755", t.Mode)
		c.between(at+".uid", t.UID, 0, maxID)
		c.between(at+".gid", t.GID, 0, maxID)
		if t.Type == "tmpfs" {
			c.need(t.Volume == "", at+".volume", "is %q, want \"\" for a tmpfs", t.Volume)
			c.between(at+".sizeMiB", t.SizeMiB, 1, m.MemoryMiB)
			continue
		}
		c.between(at+".sizeMiB", t.SizeMiB, 0, 0)
		c.need(slices.ContainsFunc(d.Volumes, func(v Volume) bool { return v.Name == t.Volume }), at+".volume", "is %q, which is not in volumes", t.Volume)
		c.unique(mounted, at+".volume", t.Volume, "the volume")
	}
}

func (c *checker) files(at string, m Machine) {
	c.count(at, len(m.Files), maxFiles)
	paths := map[string]string{}
	for i, f := range m.Files {
		at := strict.Index(at, i)
		c.place(at+".path", f.Path)
		c.unique(paths, at+".path", f.Path, "the path")
		for j, other := range m.Files {
			c.need(!below(other.Path, f.Path), at+".path", "is %q, a file, but files[%d] lies below it", f.Path, j)
		}
		for j, t := range m.Mounts {
			c.need(f.Path != t.Path && !below(f.Path, t.Path), at+".path", "is %q, which mounts[%d] at %q would hide", f.Path, j, t.Path)
			c.need(!below(t.Path, f.Path), at+".path", "is %q, a file, but mounts[%d] lies below it", f.Path, j)
		}
		c.need(octal(f.Mode, '0'), at+".mode", "is %q, want four octal digits, the first 0, such as 0644", f.Mode)
		c.between(at+".uid", f.UID, 0, maxID)
		c.between(at+".gid", f.GID, 0, maxID)
		c.enum(at+".encoding", f.Encoding, "utf-8 base64")
		_, err := f.Bytes()
		c.need(err == nil, at+".content", "is not canonical base64 (standard alphabet, with padding)")
	}
}

func (c *checker) interfaces(at string, d *Deployment, m Machine, addresses map[string]string) {
	c.count(at, len(m.Interfaces), maxInterfaces)
	joined := map[string]string{}
	for i, f := range m.Interfaces {
		at := strict.Index(at, i)
		k := slices.IndexFunc(d.Networks, func(n Network) bool { return n.Name == f.Network })
		c.need(k >= 0, at+".network", "is %q, which is not in networks", f.Network)
		c.unique(joined, at+".network", f.Network, "the network")
		a, err := netip.ParseAddr(f.Address)
		c.need(err == nil && a.Is4() && a.String() == f.Address, at+".address", "is %q, want an IPv4 address such as 10.42.0.2", f.Address)
		if c.first != nil {
			return
		}
		p := netip.MustParsePrefix(d.Networks[k].Subnet)
		bridge, broadcast := p.Addr().Next(), lastAddress(p)
		c.need(p.Contains(a), at+".address", "is %s, which is outside %s of network %q", a, p, f.Network)
		c.need(a != p.Addr(), at+".address", "is %s, the address of network %q itself", a, f.Network)
		c.need(a != broadcast, at+".address", "is %s, the broadcast address of network %q", a, f.Network)
		c.need(a != bridge, at+".address", "is %s, which is the node's bridge in network %q", a, f.Network)
		c.unique(addresses, at+".address", f.Address, "the address")
	}
}

// lastAddress is the broadcast address of an IPv4 prefix.
func lastAddress(p netip.Prefix) netip.Addr {
	b := p.Addr().As4()
	for bit := p.Bits(); bit < 32; bit++ {
		b[bit/8] |= 0x80 >> (bit % 8)
	}
	return netip.AddrFrom4(b)
}

// health: each kind uses its own fields, all others stand at zero, so that
// there is one way to say one thing.
func (c *checker) health(at string, h Health) {
	c.enum(at+".kind", h.Kind, "none tcp http exec")
	if h.Kind == "tcp" || h.Kind == "http" {
		c.between(at+".port", h.Port, 1, 65535)
	} else {
		c.between(at+".port", h.Port, 0, 0)
	}
	if h.Kind == "http" {
		c.need(strings.HasPrefix(h.Path, "/") && len(h.Path) <= maxPath && every(h.Path, func(b byte) bool { return b > ' ' && b < 0x7f }),
			at+".path", "is %q, want what stands behind the host in a URL, such as /healthz", h.Path)
	} else {
		c.need(h.Path == "", at+".path", "is %q, want \"\" for kind %q", h.Path, h.Kind)
	}
	if h.Kind == "exec" {
		c.argv(at+".args", h.Args, false)
	} else {
		c.need(len(h.Args) == 0, at+".args", "has %d entries, want none for kind %q", len(h.Args), h.Kind)
	}
	if h.Kind == "none" {
		c.between(at+".intervalMs", h.IntervalMs, 0, 0)
		c.between(at+".timeoutMs", h.TimeoutMs, 0, 0)
		c.between(at+".deadlineMs", h.DeadlineMs, 0, 0)
		c.between(at+".failures", h.Failures, 0, 0)
		return
	}
	c.between(at+".intervalMs", h.IntervalMs, minCheckMs, maxWaitMs)
	c.between(at+".deadlineMs", h.DeadlineMs, minCheckMs, maxWaitMs)
	c.between(at+".timeoutMs", h.TimeoutMs, minCheckMs, h.DeadlineMs)
	c.between(at+".failures", h.Failures, 1, 100)
}

func (c *checker) failure(at string, f Failure) {
	c.enum(at+".action", f.Action, "end restart")
	if f.Action == "end" {
		c.between(at+".maxRestarts", f.MaxRestarts, 0, 0)
		c.between(at+".backoffMs", f.BackoffMs, 0, 0)
		return
	}
	c.between(at+".maxRestarts", f.MaxRestarts, 1, 1000)
	c.between(at+".backoffMs", f.BackoffMs, 0, maxWaitMs)
}
