// SPDX-License-Identifier: Apache-2.0

// Package spectest holds a deployment that uses every field of package spec,
// for tests that must not miss one.
package spectest

import (
	"strings"

	"github.com/zos-node/zos/spec"
)

// Digest is a well-formed digest made of one hex digit.
func Digest(hex string) string { return "sha256:" + strings.Repeat(hex, 64) }

// Full returns a valid deployment in which every list and map has an entry
// and every field has a value other than its zero somewhere. Each call makes a
// new one.
func Full() *spec.Deployment {
	return &spec.Deployment{
		APIVersion: spec.APIVersion,
		Kind:       spec.Kind,
		Metadata:   spec.Metadata{Name: "shop", Version: 3, Labels: map[string]string{"team": "sales", "zos.example/tier": "1"}},
		Placement:  spec.Placement{Replicas: 2, Arch: "amd64", Labels: map[string]string{"site": "demo"}, OnPartition: "keep"},
		Networks: []spec.Network{
			{Name: "inner", Subnet: "10.42.0.0/24", Isolation: "isolated"},
			{Name: "outer", Subnet: "10.43.0.0/29", Isolation: "outbound"},
		},
		Gateways: []spec.Gateway{{Name: "http", Protocol: "tcp", Port: 8080, Machine: "web", Network: "outer", TargetPort: 80}},
		Volumes:  []spec.Volume{{Name: "data", SizeMiB: 64, Filesystem: "ext4", Encryption: "none", AtEnd: "delete"}},
		Machines: []spec.Machine{app(), web(), job()},
		Security: spec.Security{RequiredRoles: []string{"owner"}, Attestation: "none"},
	}
}

func machine(name, hex string) spec.Machine {
	return spec.Machine{
		Name: name, Hypervisor: "any", VCPUs: 1, MemoryMiB: 128,
		Kernel: Digest("a"), Initramfs: Digest("b"), Cmdline: "console=ttyS0 quiet",
		Image: spec.Image{OCI: Digest(hex), Platform: "linux/amd64", ID: Digest("d"), VerityRoot: strings.Repeat("e", 64)},
		Process: spec.Process{
			Args: []string{"/bin/" + name}, Env: map[string]string{}, Cwd: "/", User: "0:0",
			Capabilities: []string{}, StopSignal: "SIGTERM", StopGraceMs: 1000,
		},
		Files: []spec.File{}, Mounts: []spec.Mount{}, Interfaces: []spec.Interface{},
		Health: spec.Health{Kind: "none", Args: []string{}}, DependsOn: []string{}, Failure: spec.Failure{Action: "end"},
	}
}

func app() spec.Machine {
	m := machine("app", "1")
	m.Process.Args = []string{"app", "--listen", ":8000"}
	m.Process.Env = map[string]string{"PATH": "/bin", "HOME": "/data"}
	m.Mounts = []spec.Mount{
		{Type: "volume", Volume: "data", Path: "/data", Mode: "0755", UID: 1000, GID: 1001, ReadOnly: true},
		{Type: "tmpfs", Path: "/tmp", SizeMiB: 8, Mode: "1777"},
	}
	m.Interfaces = []spec.Interface{{Network: "inner", Address: "10.42.0.2"}}
	m.Health = spec.Health{Kind: "tcp", Port: 8000, Args: []string{}, IntervalMs: 500, TimeoutMs: 500, DeadlineMs: 10000, Failures: 2}
	m.Failure = spec.Failure{Action: "restart", MaxRestarts: 3, BackoffMs: 100}
	return m
}

func web() spec.Machine {
	m := machine("web", "2")
	m.Hypervisor = "qemu"
	m.VCPUs = 2
	m.Process.User = "33:33"
	m.Process.Capabilities = []string{"CAP_NET_BIND_SERVICE"}
	m.Files = []spec.File{
		{Path: "/etc/nginx/nginx.conf", Mode: "0644", UID: 33, GID: 33, Encoding: "utf-8", Content: "events {}\n"},
		{Path: "/etc/nginx/key", Mode: "0400", Encoding: "base64", Content: "AAECAw=="},
	}
	m.Interfaces = []spec.Interface{{Network: "inner", Address: "10.42.0.3"}, {Network: "outer", Address: "10.43.0.6"}}
	m.Health = spec.Health{Kind: "http", Port: 80, Path: "/healthz", Args: []string{}, IntervalMs: 500, TimeoutMs: 500, DeadlineMs: 10000, Failures: 2}
	m.DependsOn = []string{"app"}
	return m
}

func job() spec.Machine {
	m := machine("job", "3")
	m.Health = spec.Health{Kind: "exec", Args: []string{"/bin/true"}, IntervalMs: 500, TimeoutMs: 500, DeadlineMs: 10000, Failures: 2}
	m.DependsOn = []string{"app", "web"}
	return m
}
