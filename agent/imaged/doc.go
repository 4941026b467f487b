// SPDX-License-Identifier: Apache-2.0

// Package imaged is the agent's side of the image servers: it lets an image be
// used before all of it has arrived.
//
// A server is a process of its own (package serve) that shows the disk over
// FUSE. The agent makes the mount, over an empty file, and hands the open device over; from then on the
// server needs no right at all. When the image has arrived, the mount is taken
// away (Detach), the file is verified and gets its name in the store, and the
// next start opens that. A VM that has the mounted file open keeps it; the
// server ends with the last. Images does all that for whoever only wants a
// path to start from.
//
// What other images of the store have of it, the agent reads and hands to the
// server (Near), which has no right to look at those itself. An agent that is
// restarted does so no more; mirrors then send it.
//
// A start pack that was asked for with the manifest it sends on as it comes
// (Near.Pack), and looks at nothing of it.
//
// Servers live like VMMs: in a cgroup of their own, with a state file, and
// they outlive the agent, which adopts them again. A server that dies takes
// with it what runs from it, as a broken disk would; whoever watches Ended
// hears of it.
package imaged
