// SPDX-License-Identifier: Apache-2.0

package plan

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/spec"
)

func guestConfig(d *spec.Deployment, s spec.Machine, p *Plan) (*wire.Config, error) {
	uid, gid, err := user(s.Process.User)
	if err != nil {
		return nil, err
	}
	c := &wire.Config{Machine: s.Name, Hosts: hosts(d, s), Files: []wire.File{}, Mounts: []wire.Mount{}, Interfaces: []wire.Interface{},
		Process: wire.Process{Args: s.Process.Args, Env: []string{}, Cwd: s.Process.Cwd, UID: uid, GID: gid, Capabilities: s.Process.Capabilities,
			StopSignal: s.Process.StopSignal, StopGraceMs: s.Process.StopGraceMs},
		Check: wire.Check{Kind: s.Health.Kind, Port: int(s.Health.Port), Path: s.Health.Path, Args: s.Health.Args, IntervalMs: s.Health.IntervalMs,
			TimeoutMs: s.Health.TimeoutMs, DeadlineMs: s.Health.DeadlineMs, Failures: s.Health.Failures}}
	for _, k := range slices.Sorted(maps.Keys(s.Process.Env)) {
		c.Process.Env = append(c.Process.Env, k+"="+s.Process.Env[k])
	}
	for _, file := range s.Files {
		mode, err := octal(file.Mode)
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", file.Path, err)
		}
		content, err := file.Bytes()
		if err != nil {
			return nil, fmt.Errorf("file %s: %w", file.Path, err)
		}
		c.Files = append(c.Files, wire.File{Path: file.Path, Mode: mode, UID: int(file.UID), GID: int(file.GID), Content: content})
	}
	for _, mt := range s.Mounts {
		mode, err := octal(mt.Mode)
		if err != nil {
			return nil, fmt.Errorf("mount %s: %w", mt.Path, err)
		}
		w := wire.Mount{Type: mt.Type, Path: mt.Path, SizeMiB: mt.SizeMiB, Mode: mode, UID: int(mt.UID), GID: int(mt.GID), ReadOnly: mt.ReadOnly}
		if mt.Type == "volume" {
			w.Serial = serial(mt.Volume)
		}
		c.Mounts = append(c.Mounts, w)
	}
	way := defaultNetwork(d, s.Name)
	for _, itf := range s.Interfaces {
		n, t, err := find(&p.Network, itf.Network, s.Name)
		if err != nil {
			return nil, err
		}
		w := wire.Interface{MAC: t.MAC, Address: netip.PrefixFrom(t.Address, n.Host.Bits()).String(), MTU: mtu}
		if n.Name == way {
			w.Gateway = n.Host.Addr().String()
		}
		c.Interfaces = append(c.Interfaces, w)
	}
	return c, nil
}

// hosts names every machine that this one can reach, and itself. Where two
// share several networks, the first of the other's interfaces counts.
func hosts(d *spec.Deployment, s spec.Machine) map[string]string {
	mine := map[string]bool{}
	for _, itf := range s.Interfaces {
		mine[itf.Network] = true
	}
	out := map[string]string{}
	for _, m := range d.Machines {
		for _, itf := range m.Interfaces {
			if _, have := out[m.Name]; mine[itf.Network] && !have {
				out[m.Name] = itf.Address
			}
		}
	}
	return out
}

func user(s string) (uid, gid int, err error) {
	u, g, _ := strings.Cut(s, ":")
	if uid, err = strconv.Atoi(u); err == nil {
		gid, err = strconv.Atoi(g)
	}
	if err != nil {
		return 0, 0, fmt.Errorf("user %q: %w", s, err)
	}
	return uid, gid, nil
}

func octal(s string) (uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil {
		return 0, fmt.Errorf("mode %q: %w", s, err)
	}
	return uint32(n), nil
}
