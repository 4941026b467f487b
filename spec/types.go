// SPDX-License-Identifier: Apache-2.0

package spec

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
	APIVersion string    `json:"apiVersion"`
	Kind       string    `json:"kind"`
	Metadata   Metadata  `json:"metadata"`
	Placement  Placement `json:"placement"`
	Networks   []Network `json:"networks"`
	Gateways   []Gateway `json:"gateways"`
	Volumes    []Volume  `json:"volumes"`
	Machines   []Machine `json:"machines"`
	Security   Security  `json:"security"`
}

// Metadata names a deployment. Name is its identity on the ledger: a DNS
// label. Version starts at 1 and each accepted update adds one.
type Metadata struct {
	Name    string            `json:"name"`
	Version int64             `json:"version"`
	Labels  map[string]string `json:"labels"`
}

// Placement says where and how often the deployment runs.
type Placement struct {
	Replicas int64             `json:"replicas"` // number of nodes, each runs the whole deployment; 1..100
	Arch     string            `json:"arch"`     // "amd64" or "arm64"
	Labels   map[string]string `json:"labels"`   // every pair must be on the node
	// OnPartition is what a node does when it cannot renew its lease:
	// "stop" (at most once) or "keep" (may run twice).
	OnPartition string `json:"onPartition"`
}

// Network is a private layer-2 segment of this deployment.
type Network struct {
	Name      string `json:"name"`      // DNS label
	Subnet    string `json:"subnet"`    // IPv4 prefix in canonical form, such as 10.42.0.0/24; the first host address is the node's bridge
	Isolation string `json:"isolation"` // "isolated": members only; "outbound": members may also open connections to the outside (NAT)
}

// Gateway lets the outside reach a machine.
type Gateway struct {
	Name       string `json:"name"`       // DNS label
	Protocol   string `json:"protocol"`   // "tcp"
	Port       int64  `json:"port"`       // port on the node, 1..65535
	Machine    string `json:"machine"`    // target machine
	Network    string `json:"network"`    // network over which the target is reached
	TargetPort int64  `json:"targetPort"` // port in the machine
}

// Volume is writable storage that a machine can mount.
type Volume struct {
	Name       string `json:"name"`
	SizeMiB    int64  `json:"sizeMiB"`
	Filesystem string `json:"filesystem"` // "ext4"
	Encryption string `json:"encryption"` // "none"
	AtEnd      string `json:"atEnd"`      // "delete"
}

// Machine is one guest VM.
type Machine struct {
	Name       string      `json:"name"`       // DNS label, also its host name
	Hypervisor string      `json:"hypervisor"` // "any", "cloud-hypervisor" or "qemu"
	VCPUs      int64       `json:"vcpus"`      // 1..64
	MemoryMiB  int64       `json:"memoryMiB"`  // 64..1048576
	Kernel     string      `json:"kernel"`     // digest of the kernel image, "sha256:<hex>"
	Initramfs  string      `json:"initramfs"`  // digest of the initramfs, "sha256:<hex>"
	Cmdline    string      `json:"cmdline"`    // kernel command line; plan appends only the zos.verity= word
	Image      Image       `json:"image"`
	Process    Process     `json:"process"`
	Files      []File      `json:"files"`
	Mounts     []Mount     `json:"mounts"`
	Interfaces []Interface `json:"interfaces"`
	Health     Health      `json:"health"`
	DependsOn  []string    `json:"dependsOn"` // machines that must be healthy before this one's process starts
	Failure    Failure     `json:"failure"`
}

// Image names a Zero-Image and where it came from, so that anybody can
// convert the OCI image again and compare.
type Image struct {
	OCI        string `json:"oci"`        // manifest digest of the OCI image for the platform, "sha256:<hex>"
	Platform   string `json:"platform"`   // "linux/amd64" or "linux/arm64"
	ID         string `json:"id"`         // Zero-Image id: digest of its manifest, "sha256:<hex>"
	VerityRoot string `json:"verityRoot"` // dm-verity root hash, 64 hex digits
}

// Process is what PID 1 of the guest starts.
type Process struct {
	Args         []string          `json:"args"`         // argv; args[0] is an absolute path or is looked up in env PATH
	Env          map[string]string `json:"env"`          // the whole environment
	Cwd          string            `json:"cwd"`          // absolute path
	User         string            `json:"user"`         // "uid:gid", numeric
	Capabilities []string          `json:"capabilities"` // "CAP_…"; the only ones that the process keeps
	StopSignal   string            `json:"stopSignal"`   // such as "SIGTERM"
	StopGraceMs  int64             `json:"stopGraceMs"`  // from stopSignal to SIGKILL
}

// File is a small configuration file, part of the signed bytes, placed over
// the image's read-only root.
type File struct {
	Path     string `json:"path"` // absolute, clean
	Mode     string `json:"mode"` // four octal digits, such as "0644"
	UID      int64  `json:"uid"`
	GID      int64  `json:"gid"`
	Encoding string `json:"encoding"` // "utf-8" or "base64"
	Content  string `json:"content"`
}

// Mount is a writable place in the otherwise read-only root.
type Mount struct {
	Type     string `json:"type"`    // "tmpfs" or "volume"
	Volume   string `json:"volume"`  // name of the volume; "" for tmpfs
	Path     string `json:"path"`    // absolute, clean
	SizeMiB  int64  `json:"sizeMiB"` // tmpfs: its limit; volume: 0
	Mode     string `json:"mode"`    // of the mounted root directory, four octal digits
	UID      int64  `json:"uid"`
	GID      int64  `json:"gid"`
	ReadOnly bool   `json:"readOnly"`
}

// Interface joins a machine to a network with a static address.
type Interface struct {
	Network string `json:"network"`
	Address string `json:"address"` // IPv4 address inside the network's subnet
}

// Health is the check that decides whether a machine serves. It is made in
// the guest, against the guest itself.
type Health struct {
	Kind       string   `json:"kind"` // "none" (alive is enough), "tcp", "http" or "exec"
	Port       int64    `json:"port"` // tcp, http; else 0
	Path       string   `json:"path"` // http: absolute path; else ""
	Args       []string `json:"args"` // exec: argv; else []
	IntervalMs int64    `json:"intervalMs"`
	TimeoutMs  int64    `json:"timeoutMs"`  // of one check
	DeadlineMs int64    `json:"deadlineMs"` // from process start to the first success
	Failures   int64    `json:"failures"`   // consecutive failures, after the first success, that count as a failure of the machine
}

// Failure says what happens when a running machine fails (its process ends,
// its health check fails, its VM dies). A check on what the machine is made
// of (verity, measured configuration) always ends the deployment.
type Failure struct {
	Action      string `json:"action"`      // "end": the deployment ends; "restart": the machine is started again
	MaxRestarts int64  `json:"maxRestarts"` // restart: after so many the deployment ends; end: 0
	BackoffMs   int64  `json:"backoffMs"`   // restart: wait before each; end: 0
}

// Security adds to the ledger's policy; it can never take away from it.
type Security struct {
	RequiredRoles []string `json:"requiredRoles"` // roles that must sign beyond the policy's
	Attestation   string   `json:"attestation"`   // "none" ("tpm" is refused until nodes can attest)
}
