// SPDX-License-Identifier: Apache-2.0

// Package vm runs one guest under a hypervisor. Driver is implemented by
// agent/vm/ch (Cloud Hypervisor) and agent/vm/qemu; both pass the same test
// suite (agent/vm/vmtest).
//
// A VM belongs to its directory: sockets, logs and a state file stand there,
// so that an agent that was restarted adopts running VMs again.
package vm

import (
	"context"
	"net"
	"os"
	"time"
)

// Config is the exact VM; plan makes it from the spec, Start adds nothing.
type Config struct {
	ID        string // unique on the node; also the cgroup's name
	Dir       string // private directory of the VM, mode 0700, made by the caller
	VCPUs     int
	MemoryMiB int
	Kernel    string // path of a verified kernel image
	Initramfs string // path of a verified initramfs
	Cmdline   string
	Disks     []Disk
	NICs      []NIC
	CID       uint32 // vsock context id, >= 3, unique on the node
}

// Disk is a raw file as a virtio-blk device that the guest finds by serial.
type Disk struct {
	Path     string
	ReadOnly bool
	Serial   string // at most 20 bytes; "root" is the Zero-Image
}

// NIC is a virtio-net device on a tap. The tap exists, is up and is in its
// bridge before Start. Tap holds its open fd during Start.
type NIC struct {
	TapName string
	Tap     *os.File `json:"-"`
	MAC     string
	MTU     int
}

// Running is the configuration as the hypervisor itself reports it, for
// comparison with Config (post-verify).
type Running struct {
	VCPUs     int
	MemoryMiB int
	Kernel    string
	Initramfs string
	Cmdline   string
	// CmdlineAdded is what the hypervisor puts behind the command line by itself,
	// so that a guest's kernel says more than was configured; "" is nothing.
	CmdlineAdded string
	Disks        []Disk
	NICs         []NIC
	CID          uint32
	Hardening    map[string]string // what can be seen of the VMM process: seccomp, landlock, uid, cgroup
}

// EventKind is a stable word.
type EventKind string

const (
	EventPanic  EventKind = "panic"  // the guest's kernel reported a panic (pvpanic)
	EventReboot EventKind = "reboot" // the guest asked for a reboot; the VM must be killed
	EventExit   EventKind = "exit"   // the VMM process is gone
)

// Event is something that the VM did by itself.
type Event struct {
	Kind   EventKind
	At     time.Time
	Detail string
}

// Driver starts VMs and finds them again.
type Driver interface {
	Name() string // "cloud-hypervisor" or "qemu"
	// Version runs the program and returns what it says.
	Version(ctx context.Context) (string, error)
	// Listen opens the host's end of the vsock port of a VM. It must be called
	// before Start, and again by an agent that adopts. Every accepted
	// connection comes from that VM and no other.
	Listen(cfg Config, port uint32) (net.Listener, error)
	// Start returns when the VMM process runs with the given configuration.
	// On error nothing of it is left.
	Start(ctx context.Context, cfg Config) (VM, error)
	// Adopt finds the VM of a directory that an earlier Start filled.
	Adopt(ctx context.Context, cfg Config) (VM, error)
}

// VM is one running guest. Its process outlives the agent.
type VM interface {
	PID() int
	// Events delivers until the VMM is gone; EventExit is the last and the
	// channel is then closed. Events from before an adoption are delivered too.
	Events() <-chan Event
	Info(ctx context.Context) (Running, error)
	// Kill ends the VMM at once and waits for it. The driver removes what it
	// put into Dir and the cgroup. Killing a VM that is gone is no error.
	Kill(ctx context.Context) error
}
