// SPDX-License-Identifier: Apache-2.0

// Package wire is the protocol between a guest's PID 1 and the agent.
//
// The guest dials vsock CID 2, Port; the host never dials. Each frame is a
// little-endian uint32 length and that many bytes of JSON, at most MaxFrame.
// The guest speaks first (Hello). The host answers with Config (fresh guest)
// or Resume (a guest that already runs and lost its agent). All later frames
// may come in any order, each direction is one ordered stream.
package wire

import "time"

// HealthEvery is how often a guest repeats its Health, changed or not. A host
// that hears nothing for several times as long takes the guest for hung.
const HealthEvery = 10 * time.Second

// Port is the vsock port that the agent listens on for each VM.
const Port = 1024

// Arriving is the word that the agent puts behind a guest's kernel command line
// when the root's image is still arriving: the guest then reads nothing ahead of it
// while it starts. An older guest does not know it.
const Arriving = "zos.arriving"

// Version of this protocol; a different one ends the guest.
const Version = 1

// MaxFrame bounds a frame in bytes.
const MaxFrame = 1 << 20

// Frame is the one message type; exactly one field is set.
type Frame struct {
	// guest to host
	Hello   *Hello   `json:"hello,omitempty"`
	Report  *Report  `json:"report,omitempty"`
	Started *Started `json:"started,omitempty"`
	Output  *Output  `json:"output,omitempty"`
	Health  *Health  `json:"health,omitempty"`
	Exit    *Exit    `json:"exit,omitempty"`
	Fatal   *Fatal   `json:"fatal,omitempty"`
	// host to guest
	Config *Config `json:"config,omitempty"`
	Resume *Resume `json:"resume,omitempty"`
	Start  *Start  `json:"start,omitempty"`
	Stop   *Stop   `json:"stop,omitempty"`
	ExitOK *ExitOK `json:"exitOK,omitempty"`
}

// Hello is the guest's first frame on every connection.
type Hello struct {
	Version   int    `json:"version"`
	BootID    string `json:"bootID"`    // /proc/sys/kernel/random/boot_id
	PublicKey string `json:"publicKey"` // "ssh-ed25519 …", made at boot; the private half never leaves the guest
	Kernel    string `json:"kernel"`    // uname -r
	UptimeMs  int64  `json:"uptimeMs"`
	Running   bool   `json:"running"`   // true: configured before, this is a reconnection
	OutputSeq int64  `json:"outputSeq"` // sequence number of the next Output
}

// Config is everything that the guest must set up before the process starts.
// It is derived from the signed spec alone.
type Config struct {
	Machine    string            `json:"machine"` // also the host name
	Hosts      map[string]string `json:"hosts"`   // name to address, for /etc/hosts
	Files      []File            `json:"files"`
	Mounts     []Mount           `json:"mounts"`
	Interfaces []Interface       `json:"interfaces"`
	Process    Process           `json:"process"`
	Check      Check             `json:"check"`
	TimeMs     int64             `json:"timeMs"`  // the node's clock, Unix ms; the guest sets its own from it
	Entropy    []byte            `json:"entropy"` // 32 bytes, mixed into the guest's pool
}

// File is placed over the read-only root.
type File struct {
	Path    string `json:"path"`
	Mode    uint32 `json:"mode"`
	UID     int    `json:"uid"`
	GID     int    `json:"gid"`
	Content []byte `json:"content"`
}

// Mount is a writable place.
type Mount struct {
	Type     string `json:"type"`   // "tmpfs" or "volume"
	Serial   string `json:"serial"` // of the volume's disk
	Path     string `json:"path"`
	SizeMiB  int64  `json:"sizeMiB"`
	Mode     uint32 `json:"mode"`
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
	ReadOnly bool   `json:"readOnly"`
}

// Interface is found by its MAC and gets a static address.
type Interface struct {
	MAC     string `json:"mac"`
	Address string `json:"address"` // CIDR
	Gateway string `json:"gateway"` // "" when the network is isolated
	MTU     int    `json:"mtu"`
}

// Process is the workload.
type Process struct {
	Args         []string `json:"args"`
	Env          []string `json:"env"` // sorted "K=V"
	Cwd          string   `json:"cwd"`
	UID          int      `json:"uid"`
	GID          int      `json:"gid"`
	Capabilities []string `json:"capabilities"`
	StopSignal   string   `json:"stopSignal"`
	StopGraceMs  int64    `json:"stopGraceMs"`
}

// Check is the health check that the guest makes.
type Check struct {
	Kind       string   `json:"kind"` // "none", "tcp", "http", "exec"
	Port       int      `json:"port"`
	Path       string   `json:"path"`
	Args       []string `json:"args"`
	IntervalMs int64    `json:"intervalMs"`
	TimeoutMs  int64    `json:"timeoutMs"`
	DeadlineMs int64    `json:"deadlineMs"`
	Failures   int64    `json:"failures"`
}

// Report is what the guest is made of, read from its own kernel after the
// root is mounted and everything of Config is in place.
type Report struct {
	Cmdline string            `json:"cmdline"` // /proc/cmdline
	Verity  Verity            `json:"verity"`
	Mounts  []string          `json:"mounts"` // of the workload's mount namespace, lines of mountinfo: "path fstype options"
	Addrs   []string          `json:"addrs"`  // "mac address/prefix"
	Files   map[string]string `json:"files"`  // path to sha256 hex, read back through the root
}

// Verity is the root's device-mapper state.
type Verity struct {
	Table  string `json:"table"`  // as DM_TABLE_STATUS with the table flag gives it
	Status string `json:"status"` // "V" is verified so far, "C" corrupt
}

// Started says that the process was executed.
type Started struct {
	PID      int   `json:"pid"`
	UptimeMs int64 `json:"uptimeMs"`
}

// Output is a piece of the process's output. Seq counts pieces; a gap means
// that the ring in the guest overflowed, Dropped says how many bytes were lost
// so far.
type Output struct {
	Seq     int64  `json:"seq"`
	Stream  string `json:"stream"` // "stdout" or "stderr"
	Data    []byte `json:"data"`
	Dropped int64  `json:"dropped"`
}

// Health is sent for the first result and whenever it changes, with Final when
// the deadline passed without a success, and from the first on again every
// HealthEvery: it is also the sign of life of a guest that has nothing to say.
type Health struct {
	OK     bool   `json:"ok"`
	Detail string `json:"detail"`
	Final  bool   `json:"final"`
}

// Exit is the process's end. The guest waits for ExitOK (or 5 s) and then
// powers off.
type Exit struct {
	Code      int    `json:"code"`   // -1 when ended by a signal
	Signal    string `json:"signal"` // "" or such as "SIGKILL"
	OOM       bool   `json:"oom"`
	StartedMs int64  `json:"startedMs"` // guest uptime
	EndedMs   int64  `json:"endedMs"`
	Dropped   int64  `json:"dropped"`   // output bytes lost in all
	Requested bool   `json:"requested"` // a Stop had been received
}

// Fatal ends a guest that could not be set up; it then powers off.
type Fatal struct {
	Phase string `json:"phase"`
	Error string `json:"error"`
}

// Resume tells a running guest that its new agent knows it; the guest then
// sends its Report, its Health and its output from OutputFrom again.
type Resume struct {
	OutputFrom int64 `json:"outputFrom"`
}

// Start lets the configured process start (dependsOn is met).
type Start struct{}

// Stop asks for an orderly end.
type Stop struct {
	Reason string `json:"reason"`
}

// ExitOK acknowledges Exit.
type ExitOK struct{}
