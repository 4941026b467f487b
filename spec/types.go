// SPDX-License-Identifier: Apache-2.0

package spec

import "errors"

// APIVersion and Kind are the only values that a signed deployment may carry.
const (
	APIVersion = "zos/v1"
	Kind       = "Deployment"
)

// PayloadType is the DSSE payload type of a signed deployment (package sign
// derives the SSHSIG namespace from it).
const PayloadType = "application/vnd.zos.deployment.v1+json"

// MaxBytes bounds a spec, so that its envelope fits a 64 KiB ledger entry.
const MaxBytes = 40 << 10

// Deployment is everything that there is to say about one deployment.
//
// The signed form has no optional fields: every field below is present in the
// JSON, also when it is empty, and none is defaulted on a node. Empty lists
// are [], never null.
type Deployment struct {
	APIVersion string    `json:"apiVersion" jsonschema:"enum=zos/v1"`
	Kind       string    `json:"kind" jsonschema:"enum=Deployment"`
	Metadata   Metadata  `json:"metadata"`
	Placement  Placement `json:"placement"`
	Networks   []Network `json:"networks" jsonschema:"maxItems=16"`
	Gateways   []Gateway `json:"gateways" jsonschema:"maxItems=32"`
	Volumes    []Volume  `json:"volumes" jsonschema:"maxItems=16"`
	Machines   []Machine `json:"machines" jsonschema:"minItems=1,maxItems=16"`
	Security   Security  `json:"security"`
}

// Metadata names a deployment. Name is its identity on the ledger: a DNS
// label. Version starts at 1 and each accepted update adds one.
type Metadata struct {
	Name    string            `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"`
	Version int64             `json:"version" jsonschema:"minimum=1"`
	Labels  map[string]string `json:"labels"`
}

// Placement says where and how often the deployment runs.
type Placement struct {
	Replicas int64             `json:"replicas" jsonschema:"minimum=1,maximum=100"` // number of nodes, each runs the whole deployment; 1..100
	Arch     string            `json:"arch" jsonschema:"enum=amd64,enum=arm64"`     // "amd64" or "arm64"
	Labels   map[string]string `json:"labels"`                                      // every pair must be on the node
	// OnPartition is what a node does when it cannot renew its lease:
	// "stop" (at most once) or "keep" (may run twice).
	OnPartition string `json:"onPartition" jsonschema:"enum=stop,enum=keep"`
}

// Network is a private layer-2 segment of this deployment.
type Network struct {
	Name      string `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"` // DNS label
	Subnet    string `json:"subnet" jsonschema:"pattern=^[0-9]+[.][0-9]+[.][0-9]+[.][0-9]+/[0-9]+$"` // IPv4 prefix in canonical form, such as 10.42.0.0/24; the first host address is the node's bridge
	Isolation string `json:"isolation" jsonschema:"enum=isolated,enum=outbound"`                     // "isolated": members only; "outbound": members may also open connections to the outside (NAT)
}

// Gateway lets the outside reach a machine.
type Gateway struct {
	Name       string `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"`    // DNS label
	Protocol   string `json:"protocol" jsonschema:"enum=tcp"`                                            // "tcp"
	Port       int64  `json:"port" jsonschema:"minimum=1,maximum=65535"`                                 // port on the node, 1..65535
	Machine    string `json:"machine" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"` // target machine
	Network    string `json:"network" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"` // network over which the target is reached
	TargetPort int64  `json:"targetPort" jsonschema:"minimum=1,maximum=65535"`                           // port in the machine
}

// Volume is writable storage that a machine can mount. It ends with its claim, and so
// with every restart of the node, an update of the node's own image included.
type Volume struct {
	Name       string `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=15"`
	SizeMiB    int64  `json:"sizeMiB" jsonschema:"minimum=16,maximum=16777216"`
	Filesystem string `json:"filesystem" jsonschema:"enum=ext4"` // "ext4"
	Encryption string `json:"encryption" jsonschema:"enum=none"` // "none"
	AtEnd      string `json:"atEnd" jsonschema:"enum=delete"`    // "delete"
}

// Machine is one guest VM.
type Machine struct {
	Name       string      `json:"name" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"` // DNS label, also its host name
	Hypervisor string      `json:"hypervisor" jsonschema:"enum=any,enum=cloud-hypervisor,enum=qemu"`       // "any", "cloud-hypervisor" or "qemu"
	VCPUs      int64       `json:"vcpus" jsonschema:"minimum=1,maximum=64"`                                // 1..64
	MemoryMiB  int64       `json:"memoryMiB" jsonschema:"minimum=64,maximum=1048576"`                      // 64..1048576
	Kernel     string      `json:"kernel" jsonschema:"pattern=^sha256:[0-9a-f]{64}$"`                      // digest of the kernel image, "sha256:<hex>"
	Initramfs  string      `json:"initramfs" jsonschema:"pattern=^sha256:[0-9a-f]{64}$"`                   // digest of the initramfs, "sha256:<hex>"
	Cmdline    string      `json:"cmdline" jsonschema:"maxLength=1024"`                                    // kernel command line; the plan appends the zos.verity= word, and the agent zos.arriving while the image is arriving
	Image      Image       `json:"image"`
	Process    Process     `json:"process"`
	Files      []File      `json:"files" jsonschema:"maxItems=64"`
	Mounts     []Mount     `json:"mounts" jsonschema:"maxItems=32"`
	Interfaces []Interface `json:"interfaces" jsonschema:"maxItems=8"`
	Health     Health      `json:"health"`
	DependsOn  []string    `json:"dependsOn" jsonschema:"uniqueItems=true"` // machines that must be healthy before this one's process starts
	Failure    Failure     `json:"failure"`
}

// Image names a Zero-Image and where it came from, so that anybody can
// convert the OCI image again and compare.
type Image struct {
	OCI        string `json:"oci" jsonschema:"pattern=^sha256:[0-9a-f]{64}$"`          // manifest digest of the OCI image for the platform, "sha256:<hex>"
	Platform   string `json:"platform" jsonschema:"enum=linux/amd64,enum=linux/arm64"` // "linux/amd64" or "linux/arm64"
	ID         string `json:"id" jsonschema:"pattern=^sha256:[0-9a-f]{64}$"`           // Zero-Image id: digest of its manifest, "sha256:<hex>"
	VerityRoot string `json:"verityRoot" jsonschema:"pattern=^[0-9a-f]{64}$"`          // dm-verity root hash, 64 hex digits
}

// Process is what PID 1 of the guest starts.
//
// CAP_SYS_RAWIO, CAP_SYS_PTRACE, CAP_SYS_ADMIN, CAP_PERFMON and CAP_BPF are the
// guest's kernel: a workload that has one of them as root may switch off in its
// guest what the guest checks, dm-verity and the filter of system calls among it.
// It stays in its VM. Who signs a spec with one of them signs that.
type Process struct {
	Args         []string          `json:"args" jsonschema:"minItems=1,maxItems=256"`                        // argv; args[0] is an absolute path or is looked up in env PATH
	Env          map[string]string `json:"env"`                                                              // the whole environment
	Cwd          string            `json:"cwd" jsonschema:"pattern=^/"`                                      // absolute path
	User         string            `json:"user" jsonschema:"pattern=^[0-9]+:[0-9]+$"`                        // "uid:gid", numeric
	Capabilities []string          `json:"capabilities" jsonschema:"pattern=^CAP_[A-Z_]+$,uniqueItems=true"` // "CAP_…"; the only ones that the process keeps
	StopSignal   string            `json:"stopSignal" jsonschema:"pattern=^SIG[A-Z0-9]+$"`                   // such as "SIGTERM"
	StopGraceMs  int64             `json:"stopGraceMs" jsonschema:"minimum=0,maximum=600000"`                // from stopSignal to SIGKILL
}

// File is a small configuration file, part of the signed bytes, placed over
// the image's read-only root.
type File struct {
	Path     string `json:"path" jsonschema:"pattern=^/."`         // absolute, clean
	Mode     string `json:"mode" jsonschema:"pattern=^0[0-7]{3}$"` // four octal digits, such as "0644"
	UID      int64  `json:"uid" jsonschema:"minimum=0,maximum=4294967294"`
	GID      int64  `json:"gid" jsonschema:"minimum=0,maximum=4294967294"`
	Encoding string `json:"encoding" jsonschema:"enum=utf-8,enum=base64"` // "utf-8" or "base64"
	Content  string `json:"content"`
}

// Bytes is the content that the file has in the guest.
func (f File) Bytes() ([]byte, error) {
	if f.Encoding != "base64" {
		return []byte(f.Content), nil
	}
	b, ok := base64Text(f.Content)
	if !ok {
		return nil, errors.New("content is not canonical base64 (standard alphabet, with padding)")
	}
	return b, nil
}

// Mount is a writable place in the otherwise read-only root.
type Mount struct {
	Type     string `json:"type" jsonschema:"enum=tmpfs,enum=volume"`       // "tmpfs" or "volume"
	Volume   string `json:"volume"`                                         // name of the volume; "" for tmpfs
	Path     string `json:"path" jsonschema:"pattern=^/."`                  // absolute, clean
	SizeMiB  int64  `json:"sizeMiB" jsonschema:"minimum=0,maximum=1048576"` // tmpfs: its limit; volume: 0
	Mode     string `json:"mode" jsonschema:"pattern=^[0-3][0-7]{3}$"`      // of the mounted root directory, four octal digits
	UID      int64  `json:"uid" jsonschema:"minimum=0,maximum=4294967294"`
	GID      int64  `json:"gid" jsonschema:"minimum=0,maximum=4294967294"`
	ReadOnly bool   `json:"readOnly"`
}

// Interface joins a machine to a network with a static address.
type Interface struct {
	Network string `json:"network" jsonschema:"pattern=^[a-z0-9]([a-z0-9-]*[a-z0-9])?$,maxLength=63"`
	Address string `json:"address" jsonschema:"format=ipv4"` // IPv4 address inside the network's subnet
}

// Health is the check that decides whether a machine serves. It is made in
// the guest, against the guest itself.
type Health struct {
	Kind       string   `json:"kind" jsonschema:"enum=none,enum=tcp,enum=http,enum=exec"` // "none" (alive is enough), "tcp", "http" or "exec"
	Port       int64    `json:"port" jsonschema:"minimum=0,maximum=65535"`                // tcp, http; else 0
	Path       string   `json:"path"`                                                     // http: absolute path; else ""
	Args       []string `json:"args"`                                                     // exec: argv; else []
	IntervalMs int64    `json:"intervalMs" jsonschema:"minimum=0,maximum=3600000"`        // between two checks; before the first success the guest asks sooner
	TimeoutMs  int64    `json:"timeoutMs" jsonschema:"minimum=0,maximum=3600000"`         // of one check
	DeadlineMs int64    `json:"deadlineMs" jsonschema:"minimum=0,maximum=3600000"`        // from process start to the first success
	Failures   int64    `json:"failures" jsonschema:"minimum=0,maximum=100"`              // consecutive failures, after the first success, that count as a failure of the machine
}

// Failure says what happens when a running machine fails (its process ends,
// its health check fails, its VM dies). A check on what the machine is made
// of (verity, measured configuration) always ends the deployment.
type Failure struct {
	Action      string `json:"action" jsonschema:"enum=end,enum=restart"`        // "end": the deployment ends; "restart": the machine is started again
	MaxRestarts int64  `json:"maxRestarts" jsonschema:"minimum=0,maximum=1000"`  // restart: after so many the deployment ends; end: 0
	BackoffMs   int64  `json:"backoffMs" jsonschema:"minimum=0,maximum=3600000"` // restart: wait before each; end: 0
}

// Security adds to the ledger's policy; it can never take away from it.
type Security struct {
	RequiredRoles []string `json:"requiredRoles" jsonschema:"maxItems=16,uniqueItems=true,pattern=^[a-z][a-z0-9-]*$"` // roles that must sign beyond the policy's
	Attestation   string   `json:"attestation" jsonschema:"enum=none"`                                                // "none" ("tpm" is refused until nodes can attest)
}
