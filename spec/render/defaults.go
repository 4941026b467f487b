// SPDX-License-Identifier: Apache-2.0

package render

import (
	"encoding/json"
	"fmt"
	"strings"
)

// Default says what a field becomes that the author left out.
type Default struct {
	Path string // of the field; [] stands for every entry of the list
	// When limits the row: "kind=http" to objects whose field kind is "http",
	// "volume" to objects that have a field volume, "placement.arch=arm64" to
	// documents that say so there, "" to all. The first row that fits counts.
	When  string
	Value string // as JSON; "" where it depends on more than one field
	Note  string // how it comes about
}

// Defaults returns all defaults, in the order in which they are applied.
// A field without a row here has none: leaving it out is refused. Names,
// kernel, initramfs and image are such fields; they may be references.
func Defaults() []Default {
	return []Default{
		{"apiVersion", "", `"zos/v1"`, ""},
		{"kind", "", `"Deployment"`, ""},
		{"metadata.version", "", `1`, "each update has to add one"},
		{"metadata.labels", "", `{}`, ""},
		{"placement", "", `{}`, "and then its fields"},
		{"placement.replicas", "", `1`, ""},
		{"placement.arch", "", `"amd64"`, ""},
		{"placement.labels", "", `{}`, "any node"},
		{"placement.onPartition", "", `"stop"`, "at most one copy runs"},
		{"networks", "", `[]`, ""},
		{"networks[].subnet", "", "", "10.42.<index in networks>.0/24"},
		{"networks[].isolation", "", `"isolated"`, "members only"},
		{"volumes", "", `[]`, ""},
		{"volumes[].filesystem", "", `"ext4"`, ""},
		{"volumes[].encryption", "", `"none"`, ""},
		{"volumes[].atEnd", "", `"delete"`, ""},
		{"machines[].hypervisor", "", `"any"`, ""},
		{"machines[].vcpus", "", `1`, ""},
		{"machines[].memoryMiB", "", `256`, ""},
		{"machines[].cmdline", "placement.arch=arm64", `"console=ttyAMA0 quiet loglevel=4 panic=-1 random.trust_cpu=on"`,
			"Debian's arm64 kernel has no pvpanic: a panic is told by the reset that follows, which ends the machine"},
		{"machines[].cmdline", "", `"console=ttyS0 quiet loglevel=4 panic=0 reboot=t random.trust_cpu=on"`, ""},
		{"machines[].process", "", `{}`, "and then its fields"},
		{"machines[].process.args", "", "", "the image's entrypoint and command"},
		{"machines[].process.env", "", "", "the image's, with the author's variables over it; PATH as Docker sets it where neither has one"},
		{"machines[].process.cwd", "", "", "the image's, else /"},
		{"machines[].process.user", "", "", "the image's, else 0:0"},
		{"machines[].process.stopSignal", "", "", "the image's, else SIGTERM"},
		{"machines[].process.capabilities", "", `[]`, "none is kept"},
		{"machines[].process.stopGraceMs", "", `10000`, ""},
		{"machines[].files", "", `[]`, ""},
		{"machines[].files[].mode", "", `"0644"`, ""},
		{"machines[].files[].uid", "", `0`, ""},
		{"machines[].files[].gid", "", `0`, ""},
		{"machines[].files[].encoding", "", `"utf-8"`, ""},
		{"machines[].mounts", "", `[]`, "nothing in the machine is writable"},
		{"machines[].mounts[].type", "volume", `"volume"`, ""},
		{"machines[].mounts[].type", "", `"tmpfs"`, ""},
		{"machines[].mounts[].volume", "type=tmpfs", `""`, ""},
		{"machines[].mounts[].sizeMiB", "type=volume", `0`, "the volume has its own size"},
		{"machines[].mounts[].sizeMiB", "", `16`, ""},
		{"machines[].mounts[].mode", "", `"0755"`, ""},
		{"machines[].mounts[].uid", "", "", "that of process.user"},
		{"machines[].mounts[].gid", "", "", "that of process.user"},
		{"machines[].mounts[].readOnly", "", `false`, ""},
		{"machines[].interfaces", "", `[]`, "no network"},
		{"machines[].interfaces[].address", "", "", "the lowest free one of the subnet, in the order of the document; the first belongs to the node"},
		{"machines[].health", "", `{}`, "and then its fields"},
		{"machines[].health.kind", "", `"none"`, "alive is enough"},
		{"machines[].health.port", "", `0`, "tcp and http need one"},
		{"machines[].health.path", "kind=http", `"/"`, ""},
		{"machines[].health.path", "", `""`, ""},
		{"machines[].health.args", "", `[]`, ""},
		{"machines[].health.intervalMs", "kind=none", `0`, ""},
		{"machines[].health.intervalMs", "", `1000`, ""},
		{"machines[].health.timeoutMs", "kind=none", `0`, ""},
		{"machines[].health.timeoutMs", "", `2000`, ""},
		{"machines[].health.deadlineMs", "kind=none", `0`, ""},
		{"machines[].health.deadlineMs", "", `60000`, ""},
		{"machines[].health.failures", "kind=none", `0`, ""},
		{"machines[].health.failures", "", `3`, ""},
		{"machines[].dependsOn", "", `[]`, ""},
		{"machines[].failure", "", `{}`, "and then its fields"},
		{"machines[].failure.action", "", `"end"`, ""},
		{"machines[].failure.maxRestarts", "action=end", `0`, ""},
		{"machines[].failure.maxRestarts", "", `3`, ""},
		{"machines[].failure.backoffMs", "action=end", `0`, ""},
		{"machines[].failure.backoffMs", "", `1000`, ""},
		{"gateways", "", `[]`, ""},
		{"gateways[].protocol", "", `"tcp"`, ""},
		{"gateways[].targetPort", "", "", "that of port"},
		{"gateways[].network", "", "", "that of the machine, if it is in exactly one"},
		{"security", "", `{}`, "and then its fields"},
		{"security.requiredRoles", "", `[]`, "the ledger's policy alone"},
		{"security.attestation", "", `"none"`, ""},
	}
}

// dockerPath is the PATH that container engines set where an image has none.
const dockerPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// apply sets the row's value in every object that has not got the field.
func (row Default) apply(top map[string]any) error {
	return each(top, strings.Split(row.Path, "."), func(parent map[string]any, name string) error {
		if _, given := parent[name]; given || row.Value == "" || !row.fits(top, parent) {
			return nil
		}
		// A new value each time: two objects must not share one list.
		dec := json.NewDecoder(strings.NewReader(row.Value))
		dec.UseNumber()
		var v any
		if err := dec.Decode(&v); err != nil {
			return fmt.Errorf("default of %s: %w", row.Path, err)
		}
		parent[name] = v
		return nil
	})
}

func (row Default) fits(top, parent map[string]any) bool {
	name, want, compare := strings.Cut(row.When, "=")
	if object, field, path := strings.Cut(name, "."); path {
		parent, _ = top[object].(map[string]any)
		name = field
	}
	value, there := parent[name]
	return row.When == "" || there && (!compare || value == want)
}

// each calls f for every object that has or could have the field at path.
// What has another shape is passed over: the strict decoder refuses it later,
// with the right name.
func each(tree any, path []string, f func(parent map[string]any, name string) error) error {
	m, ok := tree.(map[string]any)
	if !ok {
		return nil
	}
	if len(path) == 1 {
		return f(m, path[0])
	}
	name, many := strings.CutSuffix(path[0], "[]")
	if !many {
		return each(m[name], path[1:], f)
	}
	list, ok := m[name].([]any)
	if !ok {
		return nil
	}
	for _, e := range list {
		if err := each(e, path[1:], f); err != nil {
			return err
		}
	}
	return nil
}
