// SPDX-License-Identifier: Apache-2.0

package spec_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
	"github.com/zos-node/zos/spec/strict"
)

// TestNames: every field that names something takes the same words as names,
// and no others.
func TestNames(t *testing.T) {
	type d = *spec.Deployment
	long := strings.Repeat("a", 64)
	for _, c := range []struct {
		field  string
		set    func(d d, s string)
		reason string
		bad    []string
	}{
		{"metadata.name", func(d d, s string) { d.Metadata.Name = s }, "DNS label", []string{"", "-a", "a-", "a_b", "a.b", "A", "a{", "ä", long}},
		{"networks[0].name", func(d d, s string) { d.Networks[0].Name = s }, "DNS label", []string{"", "-a", "A", long}},
		{"volumes[0].name", func(d d, s string) { d.Volumes[0].Name = s }, "DNS label", []string{"", "-a", "A"}},
		{"gateways[0].name", func(d d, s string) { d.Gateways[0].Name = s }, "DNS label", []string{"", "-a", "A", long}},
		{"machines[0].name", func(d d, s string) { d.Machines[0].Name = s }, "DNS label", []string{"", "-a", "A", long}},
		{"metadata.labels.@", func(d d, s string) { d.Metadata.Labels = map[string]string{s: ""} }, "no name for a label",
			[]string{"", "-a", "a-", "_a", "a/", "A", "aBc", long}},
		{"placement.labels.@", func(d d, s string) { d.Placement.Labels = map[string]string{s: ""} }, "no name for a label", []string{"-a", "A"}},
		{"security.requiredRoles[0]", func(d d, s string) { d.Security.RequiredRoles = []string{s} }, "name of a role",
			[]string{"", "1a", "-a", "a_b", "a.b", "A", strings.Repeat("a", 33)}},
		{"machines[0].process.env", func(d d, s string) { d.Machines[0].Process.Env[s] = "x" }, "no environment variable", []string{"1A", "A[", "A B", "Ä"}},
		{"machines[0].kernel", func(d d, s string) { d.Machines[0].Kernel = s }, "want sha256:",
			[]string{strings.Repeat("a", 64), "sha512:" + strings.Repeat("a", 64), strings.ToUpper(spectest.Digest("a")),
				"sha256:" + strings.Repeat("A", 64), spectest.Digest("a") + "0", spectest.Digest("g")}},
	} {
		for _, bad := range c.bad {
			d := spectest.Full()
			c.set(d, bad)
			_, err := d.Encode()
			t.Run(fmt.Sprintf("%s %.20q", c.field, bad), func(t *testing.T) {
				field := c.field
				if at, ok := strings.CutSuffix(field, ".@"); ok {
					field = strict.Join(at, bad)
				}
				refused(t, err, field, c.reason)
			})
		}
	}
	full := spectest.Full()
	full.Metadata.Labels = map[string]string{"example.org/a-b_c.d": strings.Repeat("x", 128), "0": ""}
	full.Machines[0].Process.Env["_a.B-1"] = ""
	full.Security.RequiredRoles = []string{"a", "b-1", strings.Repeat("a", 32)}
	if _, err := full.Encode(); err != nil {
		t.Errorf("good names were refused: %v", err)
	}
}

// TestEdges holds limits at their edge that no other test stands on.
func TestEdges(t *testing.T) {
	type d = *spec.Deployment
	for _, c := range []struct {
		change        func(d d)
		field, reason string
	}{
		{func(d d) { d.Metadata.Labels["a"] = strings.Repeat("x", 129) }, "metadata.labels.a", "longer than 128"},
		{func(d d) { d.Machines[0].Cmdline = "quiet zos" }, "machines[0].cmdline", "zos.* is the plan's"},
		{func(d d) {
			for i := range 257 {
				d.Machines[0].Process.Env[fmt.Sprintf("V%d", i)] = ""
			}
		}, "machines[0].process.env", "at most 256"},
		{func(d d) { d.Machines[0].Process.User = "1000:staff" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.User = "1000:" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.User = "99999999999999999999:0" }, "machines[0].process.user", "uid:gid"},
		{func(d d) { d.Machines[0].Process.Cwd = "/" + strings.Repeat("a", 1024) }, "machines[0].process.cwd", "absolute clean path"},
		{func(d d) { d.Machines[0].Mounts[1].Path = "/proc" }, "machines[0].mounts[1].path", "/proc is the kernel's"},
		{func(d d) { d.Machines[0].Mounts[1].UID = -1 }, "machines[0].mounts[1].uid", "is -1"},
		{func(d d) { d.Machines[0].Mounts[1].GID = 1<<32 - 1 }, "machines[0].mounts[1].gid", "is 4294967295"},
		{func(d d) {
			d.Machines[0].Files = []spec.File{{Path: "/tmp", Mode: "0644", Encoding: "utf-8"}}
		}, "machines[0].files[0].path", "would hide"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "fd00::2" }, "machines[0].interfaces[0].address", "IPv4 address"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "::ffff:10.42.0.2" }, "machines[0].interfaces[0].address", "IPv4 address"},
		{func(d d) { d.Machines[0].Interfaces[0].Address = "" }, "machines[0].interfaces[0].address", "IPv4 address"},
		{func(d d) { d.Machines[1].Health.Path = "/" + strings.Repeat("a", 1024) }, "machines[1].health.path", "behind the host"},
		{func(d d) { d.Machines[0].Health = spec.Health{Kind: "none", IntervalMs: 1} }, "machines[0].health.intervalMs", "is 1"},
		{func(d d) { d.Machines[0].Health = spec.Health{Kind: "none", TimeoutMs: 1} }, "machines[0].health.timeoutMs", "is 1"},
		{func(d d) { d.Machines[0].Health = spec.Health{Kind: "none", Failures: 1} }, "machines[0].health.failures", "is 1"},
		{func(d d) { d.Machines[0].Failure = spec.Failure{Action: "end", MaxRestarts: 1} }, "machines[0].failure.maxRestarts", "is 1"},
		{func(d d) { d.Machines[0].Failure.BackoffMs = 3_600_001 }, "machines[0].failure.backoffMs", "to 3600000"},
	} {
		t.Run(c.field+" "+c.reason, func(t *testing.T) {
			d := spectest.Full()
			c.change(d)
			_, err := d.Encode()
			refused(t, err, c.field, c.reason)
		})
	}
}
