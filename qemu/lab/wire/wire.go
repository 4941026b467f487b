// SPDX-License-Identifier: Apache-2.0

// Package wire is what a lab's init and the test outside say to each other on
// the serial line: commands, one JSON object a line, and the last line of the
// answer to each.
package wire

// What init and the test agree on.
const (
	ModuleDir = "/modules"
	Ready     = "lab: ready"
	Failed    = "lab: failed:"
	Exit      = "lab: exit" // and a code: the program's, or -1 when there was none
)

// Command is one line to init: one of its fields is set.
type Command struct {
	Run     []string `json:"run,omitempty"` // a program and its arguments
	Mount   *Mount   `json:"mount,omitempty"`
	Unmount string   `json:"unmount,omitempty"`
	Off     bool     `json:"off,omitempty"`
}

// Mount is a file system to mount.
type Mount struct {
	Device   string `json:"device"`
	At       string `json:"at"`
	Kind     string `json:"kind"`
	ReadOnly bool   `json:"readOnly"`
	// Unseen mounts it in a mount namespace of its own: the device is in use, and
	// nobody else's list of mounts says so.
	Unseen bool `json:"unseen"`
}
