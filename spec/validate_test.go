// SPDX-License-Identifier: Apache-2.0

package spec_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
)

// TestRefused has one line for each thing that a well-formed deployment must
// not say.
func TestRefused(t *testing.T) {
	type d = *spec.Deployment
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		change        func(d d)
		field, reason string
	}{
		{func(d d) { d.APIVersion = "zos/v2" }, "apiVersion", "want one of: zos/v1"},
		{func(d d) { d.Kind = "deployment" }, "kind", "want one of: Deployment"},
		{func(d d) { d.Metadata.Name = "Shop" }, "metadata.name", "DNS label"},
		{func(d d) { d.Metadata.Name = long }, "metadata.name", "DNS label"},
		{func(d d) { d.Metadata.Name = "shop-" }, "metadata.name", "DNS label"},
		{func(d d) { d.Metadata.Version = 0 }, "metadata.version", "is 0"},
		{func(d d) { d.Metadata.Labels["A"] = "" }, "metadata.labels.A", "no name for a label"},
		{func(d d) { d.Metadata.Labels["a"] = "x\ny" }, "metadata.labels.a", "control"},
		{func(d d) {
			for i := range 40 {
				d.Metadata.Labels[fmt.Sprint(i)] = ""
			}
		}, "metadata.labels", "at most 32"},
		{func(d d) { d.Placement.Replicas = 101 }, "placement.replicas", "want 1 to 100"},
		{func(d d) { d.Placement.Arch = "x86_64" }, "placement.arch", "amd64, arm64"},
		{func(d d) { d.Placement.Arch = "arm64" }, "machines[0].image.platform", `want "linux/arm64"`},
		{func(d d) { d.Placement.OnPartition = "" }, "placement.onPartition", "stop, keep"},

		{func(d d) { d.Networks[1].Name = "inner" }, "networks[1].name", "networks[0].name has already"},
		{func(d d) { d.Networks[0].Isolation = "none" }, "networks[0].isolation", "want one of"},
		{func(d d) { d.Networks[0].Subnet = "10.42.0.1/24" }, "networks[0].subnet", "without host bits"},
		{func(d d) { d.Networks[0].Subnet = "10.42.0.0" }, "networks[0].subnet", "IPv4 prefix"},
		{func(d d) { d.Networks[0].Subnet = "fd00::/64" }, "networks[0].subnet", "IPv4 prefix"},
		{func(d d) { d.Networks[0].Subnet = "10.0.0.0/8" }, "networks[0].subnet", "want /16 to /29"},
		{func(d d) { d.Networks[0].Subnet = "10.42.0.0/30" }, "networks[0].subnet", "want /16 to /29"},
		{func(d d) { d.Networks[0].Subnet = "8.8.8.0/24" }, "networks[0].subnet", "want a private one"},
		{func(d d) { d.Networks[1].Subnet = "10.42.0.128/25" }, "networks[1].subnet", "overlaps 10.42.0.0/24 of networks[0]"},

		{func(d d) { d.Gateways[0].Protocol = "udp" }, "gateways[0].protocol", "want one of: tcp"},
		{func(d d) { d.Gateways[0].Port = 0 }, "gateways[0].port", "1 to 65535"},
		{func(d d) { d.Gateways[0].TargetPort = 65536 }, "gateways[0].targetPort", "1 to 65535"},
		{func(d d) { d.Gateways[0].Machine = "nobody" }, "gateways[0].machine", "not in machines"},
		{func(d d) { d.Gateways[0].Network = "nowhere" }, "gateways[0].network", "not in networks"},
		{func(d d) { d.Gateways[0].Machine = "app" }, "gateways[0].network", "has no interface"},
		{func(d d) { d.Gateways = append(d.Gateways, d.Gateways[0]) }, "gateways[1].name", "has already"},
		{func(d d) {
			d.Gateways = append(d.Gateways, d.Gateways[0])
			d.Gateways[1].Name = "other"
		}, "gateways[1].port", "is 8080, which gateways[0].port has already"},

		{func(d d) { d.Volumes[0].Name = "a-name-of-sixteen"[:16] }, "volumes[0].name", "at most 15"},
		{func(d d) { d.Volumes = append(d.Volumes, d.Volumes[0]) }, "volumes[1].name", "has already"},
		{func(d d) { d.Volumes[0].SizeMiB = 0 }, "volumes[0].sizeMiB", "is 0"},
		{func(d d) { d.Volumes[0].Filesystem = "xfs" }, "volumes[0].filesystem", "ext4"},
		{func(d d) { d.Volumes[0].Encryption = "luks" }, "volumes[0].encryption", "none"},
		{func(d d) { d.Volumes[0].AtEnd = "keep" }, "volumes[0].atEnd", "delete"},

		{func(d d) { d.Machines, d.Gateways = nil, nil }, "machines", "is empty"},
		{func(d d) { d.Machines[2].Name = "web" }, "machines[2].name", "machines[1].name has already"},
		{func(d d) { d.Machines[2].Name = "localhost" }, "machines[2].name", "every machine"},
		{func(d d) { d.Machines[0].Hypervisor = "kvm" }, "machines[0].hypervisor", "cloud-hypervisor"},
		{func(d d) { d.Machines[0].VCPUs = 65 }, "machines[0].vcpus", "1 to 64"},
		{func(d d) { d.Machines[0].MemoryMiB = 63 }, "machines[0].memoryMiB", "64 to"},
		{func(d d) { d.Machines[0].Cmdline = "quiet zos.verity=0" }, "machines[0].cmdline", "zos.* is the plan's"},
		{func(d d) { d.Machines[0].Cmdline = "init=/bin/sh" }, "machines[0].cmdline", `the word "init=/bin/sh"`},
		{func(d d) { d.Machines[0].Cmdline = "quiet rdinit=/bin/sh" }, "machines[0].cmdline", "rdinit"},
		{func(d d) { d.Machines[0].Cmdline = "root=/dev/vda" }, "machines[0].cmdline", "root=/dev/vda"},
		{func(d d) { d.Machines[0].Cmdline = "quiet -- sh" }, "machines[0].cmdline", `the word "--"`},
		{func(d d) { d.Machines[0].Cmdline = `x="a b"` }, "machines[0].cmdline", "character"},
		{func(d d) { d.Machines[0].Cmdline = "a\tb" }, "machines[0].cmdline", "character"},
		{func(d d) { d.Machines[0].Cmdline = "a  b" }, "machines[0].cmdline", "spaces"},
		{func(d d) { d.Machines[0].Cmdline = strings.Repeat("a", 1025) }, "machines[0].cmdline", "at most 1024"},
		{func(d d) { d.Machines[0].Image.VerityRoot = spectest.Digest("e") }, "machines[0].image.verityRoot", "64 hex digits"},
		{func(d d) { d.Machines[0].Initramfs = "" }, "machines[0].initramfs", "want sha256:"},

		{func(d d) { d.Machines[0].Process.Args = nil }, "machines[0].process.args", "is empty"},
		{func(d d) { d.Machines[0].Process.Args[0] = "bin/app" }, "machines[0].process.args[0]", "absolute clean path"},
		{func(d d) { d.Machines[0].Process.Args[0] = "/bin/../app" }, "machines[0].process.args[0]", "absolute clean path"},
		{func(d d) { delete(d.Machines[0].Process.Env, "PATH") }, "machines[0].process.args[0]", "no PATH"},
		{func(d d) { d.Machines[0].Process.Env["A=B"] = "" }, "machines[0].process.env", "no environment variable"},
		{func(d d) { d.Machines[0].Process.Env[""] = "" }, "machines[0].process.env", "no environment variable"},
		{func(d d) { d.Machines[0].Process.Cwd = "srv" }, "machines[0].process.cwd", "absolute clean path"},
		{func(d d) { d.Machines[0].Process.Cwd = "/srv/" }, "machines[0].process.cwd", "absolute clean path"},
		{func(d d) { d.Machines[0].Process.User = "root" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.User = "01:1" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.User = "4294967295:0" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.User = "-1:0" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.Capabilities = []string{"CAP_ALL"} }, "machines[0].process.capabilities[0]", "no capability"},
		{func(d d) { d.Machines[0].Process.Capabilities = []string{"CAP_KILL", "CAP_KILL"} }, "machines[0].process.capabilities[1]", "has already"},
		{func(d d) { d.Machines[0].Process.StopSignal = "SIGSTOP" }, "machines[0].process.stopSignal", "want one of"},
		{func(d d) { d.Machines[0].Process.StopSignal = "15" }, "machines[0].process.stopSignal", "want one of"},
		{func(d d) { d.Machines[0].Process.StopGraceMs = 600_001 }, "machines[0].process.stopGraceMs", "to 600000"},

		{func(d d) { d.Machines[1].Files[0].Path = "etc/x" }, "machines[1].files[0].path", "absolute clean path"},
		{func(d d) { d.Machines[1].Files[0].Path = "/etc/../x" }, "machines[1].files[0].path", "absolute clean path"},
		{func(d d) { d.Machines[1].Files[0].Path = "/a\nb" }, "machines[1].files[0].path", "absolute clean path"},
		{func(d d) { d.Machines[1].Files[0].Path = "/" }, "machines[1].files[0].path", "below /"},
		{func(d d) { d.Machines[1].Files[0].Path = "/proc/x" }, "machines[1].files[0].path", "/proc is the kernel's"},
		{func(d d) { d.Machines[1].Files[0].Path = "/etc/nginx/key" }, "machines[1].files[1].path", "has already"},
		{func(d d) { d.Machines[1].Files[0].Path = "/etc/nginx" }, "machines[1].files[0].path", "files[1] lies below it"},
		{func(d d) { d.Machines[1].Files[0].Mode = "644" }, "machines[1].files[0].mode", "four octal digits"},
		{func(d d) { d.Machines[1].Files[0].Mode = "4755" }, "machines[1].files[0].mode", "the first 0"},
		{func(d d) { d.Machines[1].Files[0].Mode = "0849" }, "machines[1].files[0].mode", "four octal digits"},
		{func(d d) { d.Machines[1].Files[0].UID = -1 }, "machines[1].files[0].uid", "is -1"},
		{func(d d) { d.Machines[1].Files[0].GID = 1 << 32 }, "machines[1].files[0].gid", "is 4294967296"},
		{func(d d) { d.Machines[1].Files[0].Encoding = "" }, "machines[1].files[0].encoding", "utf-8, base64"},
		{func(d d) { d.Machines[1].Files[1].Content = "AAECAw" }, "machines[1].files[1].content", "base64"},

		{func(d d) { d.Machines[0].Mounts[0].Type = "bind" }, "machines[0].mounts[0].type", "tmpfs, volume"},
		{func(d d) { d.Machines[0].Mounts[0].Path = "/dev/x" }, "machines[0].mounts[0].path", "/dev is the kernel's"},
		{func(d d) { d.Machines[0].Mounts[0].Path = "/tmp" }, "machines[0].mounts[1].path", "has already"},
		{func(d d) { d.Machines[0].Mounts[0].Path = "/tmp/x" }, "machines[0].mounts[0].path", "would hide"},
		{func(d d) { d.Machines[0].Mounts[0].Volume = "nothing" }, "machines[0].mounts[0].volume", "not in volumes"},
		{func(d d) { d.Machines[0].Mounts[0].SizeMiB = 1 }, "machines[0].mounts[0].sizeMiB", "is 1"},
		{func(d d) { d.Machines[0].Mounts[1].Volume = "data" }, "machines[0].mounts[1].volume", "for a tmpfs"},
		{func(d d) { d.Machines[0].Mounts[1].SizeMiB = 0 }, "machines[0].mounts[1].sizeMiB", "is 0"},
		{func(d d) { d.Machines[0].Mounts[1].SizeMiB = 129 }, "machines[0].mounts[1].sizeMiB", "want 1 to 128"},
		{func(d d) { d.Machines[0].Mounts[1].Mode = "7777" }, "machines[0].mounts[1].mode", "at most 3777"},
		{func(d d) { d.Machines[2].Mounts = d.Machines[0].Mounts[:1] }, "machines[2].mounts[0].volume", "machines[0].mounts[0].volume has already"},
		{func(d d) {
			d.Machines[0].Files = []spec.File{{Path: "/tmp/x", Mode: "0644", Encoding: "utf-8"}}
		}, "machines[0].files[0].path", "mounts[1] at \"/tmp\" would hide"},
		{func(d d) {
			d.Machines[0].Mounts[1].Path = "/srv/x"
			d.Machines[0].Files = []spec.File{{Path: "/srv", Mode: "0644", Encoding: "utf-8"}}
		}, "machines[0].files[0].path", "mounts[1] lies below it"},

		{func(d d) { d.Machines[0].Interfaces[0].Network = "nowhere" }, "machines[0].interfaces[0].network", "not in networks"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "10.42.0.02" }, "machines[0].interfaces[0].address", "IPv4 address"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "10.44.0.2" }, "machines[0].interfaces[0].address", "outside 10.42.0.0/24"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "10.42.0.0" }, "machines[0].interfaces[0].address", "network \"inner\" itself"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "10.42.0.255" }, "machines[0].interfaces[0].address", "broadcast"},
		{func(d d) { d.Machines[1].Interfaces[1].Address = "10.43.0.7" }, "machines[1].interfaces[1].address", "broadcast"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "10.42.0.1" }, "machines[0].interfaces[0].address", "the node's bridge"},
		{func(d d) { d.Machines[1].Interfaces[0].Address = "10.42.0.2" }, "machines[1].interfaces[0].address", "has already"},
		{func(d d) { d.Machines[1].Interfaces[1].Network = "inner" }, "machines[1].interfaces[1].network", "has already"},

		{func(d d) { d.Machines[0].Health.Kind = "udp" }, "machines[0].health.kind", "none, tcp, http, exec"},
		{func(d d) { d.Machines[0].Health.Port = 0 }, "machines[0].health.port", "is 0"},
		{func(d d) { d.Machines[0].Health.Path = "/" }, "machines[0].health.path", `want ""`},
		{func(d d) { d.Machines[0].Health.Args = []string{"/x"} }, "machines[0].health.args", "want none"},
		{func(d d) { d.Machines[1].Health.Path = "healthz" }, "machines[1].health.path", "behind the host"},
		{func(d d) { d.Machines[1].Health.Path = "/ HTTP/1.1\r\n" }, "machines[1].health.path", "behind the host"},
		{func(d d) { d.Machines[2].Health.Args = nil }, "machines[2].health.args", "is empty"},
		{func(d d) { d.Machines[2].Health.Args = []string{"true"} }, "machines[2].health.args[0]", "no PATH"},
		{func(d d) { d.Machines[2].Health.Port = 1 }, "machines[2].health.port", "is 1"},
		{func(d d) { d.Machines[0].Health.IntervalMs = 0 }, "machines[0].health.intervalMs", "100 to"},
		{func(d d) { d.Machines[0].Health.TimeoutMs = 10001 }, "machines[0].health.timeoutMs", "100 to 10000"},
		{func(d d) { d.Machines[0].Health.DeadlineMs = 0 }, "machines[0].health.deadlineMs", "100 to"},
		{func(d d) { d.Machines[0].Health.Failures = 0 }, "machines[0].health.failures", "1 to 100"},
		{func(d d) { d.Machines[0].Health = spec.Health{Kind: "none", DeadlineMs: 1} }, "machines[0].health.deadlineMs", "is 1"},

		{func(d d) { d.Machines[0].Failure.Action = "ignore" }, "machines[0].failure.action", "end, restart"},
		{func(d d) { d.Machines[0].Failure.MaxRestarts = 0 }, "machines[0].failure.maxRestarts", "is 0"},
		{func(d d) { d.Machines[1].Failure.BackoffMs = 1 }, "machines[1].failure.backoffMs", "is 1"},

		{func(d d) { d.Machines[1].DependsOn = []string{"db"} }, "machines[1].dependsOn[0]", "not in machines"},
		{func(d d) { d.Machines[1].DependsOn = []string{"app", "app"} }, "machines[1].dependsOn[1]", "has already"},
		{func(d d) { d.Machines[1].DependsOn = []string{"web"} }, "machines[1].dependsOn", "in a circle: web waits for web"},
		{func(d d) { d.Machines[0].DependsOn = []string{"job"} }, "machines[0].dependsOn", "in a circle: app waits for job waits for app"},

		{func(d d) { d.Security.RequiredRoles = []string{"Owner"} }, "security.requiredRoles[0]", "name of a role"},
		{func(d d) { d.Security.RequiredRoles = []string{"a", "a"} }, "security.requiredRoles[1]", "has already"},
		{func(d d) { d.Security.Attestation = "tpm" }, "security.attestation", "until nodes can attest"},
		{func(d d) { d.Security.Attestation = "" }, "security.attestation", "want one of: none"},
	} {
		t.Run(c.field+" "+c.reason, func(t *testing.T) {
			d := spectest.Full()
			c.change(d)
			_, err := d.Encode()
			refused(t, err, c.field, c.reason)
		})
	}
}

// TestCounts holds the limits on lists.
func TestCounts(t *testing.T) {
	type d = *spec.Deployment
	for field, change := range map[string]func(d d){
		"networks":                 func(d d) { d.Networks = slices.Repeat(d.Networks, 20) },
		"gateways":                 func(d d) { d.Gateways = slices.Repeat(d.Gateways, 40) },
		"volumes":                  func(d d) { d.Volumes = slices.Repeat(d.Volumes, 20) },
		"machines":                 func(d d) { d.Machines = slices.Repeat(d.Machines[2:], 20) },
		"machines[0].interfaces":   func(d d) { d.Machines[0].Interfaces = slices.Repeat(d.Machines[0].Interfaces, 9) },
		"machines[0].mounts":       func(d d) { d.Machines[0].Mounts = slices.Repeat(d.Machines[0].Mounts, 20) },
		"machines[1].files":        func(d d) { d.Machines[1].Files = slices.Repeat(d.Machines[1].Files, 40) },
		"machines[0].process.args": func(d d) { d.Machines[0].Process.Args = slices.Repeat([]string{"/x"}, 300) },
		"security.requiredRoles":   func(d d) { d.Security.RequiredRoles = slices.Repeat([]string{"a"}, 20) },
	} {
		d := spectest.Full()
		change(d)
		_, err := d.Encode()
		refused(t, err, field, "at most")
	}
}
