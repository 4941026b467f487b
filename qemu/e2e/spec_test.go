// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec"
)

// machine is the example's app in a guest of its own.
func (w *world) machine(name, address string) spec.Machine {
	return spec.Machine{
		Name: name, Hypervisor: "any", VCPUs: 1, MemoryMiB: 192,
		Kernel: w.blobs["vmlinuz"], Initramfs: w.blobs["initramfs.cpio"],
		Cmdline: cmdlines[w.board.Arch],
		Image:   spec.Image{OCI: w.app.OCI.Manifest, Platform: w.app.OCI.Platform, ID: w.appID, VerityRoot: w.app.Verity.Root},
		Process: spec.Process{
			Args: append(append([]string{}, w.app.Config.Entrypoint...), w.app.Config.Cmd...), Env: map[string]string{"PATH": "/"},
			Cwd: "/", User: "65532:65532", Capabilities: []string{}, StopSignal: "SIGTERM", StopGraceMs: 5000,
		},
		Files: []spec.File{}, Mounts: []spec.Mount{{Type: "tmpfs", Volume: "", Path: "/tmp", SizeMiB: 8, Mode: "1777"}},
		Interfaces: []spec.Interface{{Network: "net", Address: address}},
		Health: spec.Health{
			Kind: "http", Port: 8080, Path: "/healthz", Args: []string{}, IntervalMs: 500, TimeoutMs: 2000, DeadlineMs: 180000, Failures: 20,
		},
		DependsOn: []string{}, Failure: spec.Failure{Action: "end"},
	}
}

// cmdlines are spec/render's defaults.
var cmdlines = map[string]string{
	"amd64": "console=ttyS0 quiet loglevel=4 panic=0 reboot=t random.trust_cpu=on",
	"arm64": "console=ttyAMA0 quiet loglevel=4 panic=-1 random.trust_cpu=on",
}

// deployment has one machine behind a gateway.
func (w *world) deployment(name string) *spec.Deployment {
	return &spec.Deployment{
		APIVersion: spec.APIVersion, Kind: spec.Kind,
		Metadata:  spec.Metadata{Name: name, Version: 1, Labels: map[string]string{}},
		Placement: spec.Placement{Replicas: 1, Arch: w.board.Arch, Labels: map[string]string{"site": "e2e"}, OnPartition: "keep"},
		Networks:  []spec.Network{{Name: "net", Subnet: "10.77.0.0/24", Isolation: "isolated"}},
		Gateways:  []spec.Gateway{{Name: "web", Protocol: "tcp", Port: 8000, Machine: "app", Network: "net", TargetPort: 8080}},
		Volumes:   []spec.Volume{},
		Machines:  []spec.Machine{w.machine("app", "10.77.0.10")},
		Security:  spec.Security{RequiredRoles: []string{}, Attestation: "none"},
	}
}

// register signs a deployment with all three keys and submits it.
func (w *world) register(d *spec.Deployment) int64 {
	w.t.Helper()
	b, err := d.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	if _, err := spec.Decode(b); err != nil {
		w.t.Fatal(err)
	}
	return w.submit(ledger.TypeDeployment, b, "author", "security1", "security2")
}

// hex part of a digest.
func bare(digest string) string { return strings.TrimPrefix(digest, "sha256:") }
