// SPDX-License-Identifier: Apache-2.0

// Package serve is the process that shows the disk of an image before all of
// it has arrived: a FUSE file system of one file.
//
// It is the agent's own program under another name, and has next to nothing:
// a uid of its own without a capability, no path in the file system but what
// the resolver reads, no way to connect but to the mirrors' ports, and a
// system call filter. What it works on, it inherits as open files (the FD
// constants); the mount was made by the agent. It takes no orders. It says
// what happens on its event file, one JSON object a line (Event), so that an
// agent that was restarted reads what it missed.
//
// First it asks the mirrors for the image's start pack (package zimage/pack). Where
// one comes, a guest may start with its first block, and reads wait for the others;
// the head of the image and the chunks of the trace that the pack has something of
// wait until the start is calm. Without one, and where it lies or breaks off, all
// goes by chunks. The agent may have asked a mirror for it beside the manifest; what
// that sends comes unread over a pipe (PackFD), and is looked at here as any answer.
// Of what has come, the kernel is asked to read what a start comes to next before it
// does (AheadFD).
//
// A chunk that another image of the node has is asked of the agent, over a socket,
// before a mirror is (LentFD): the process sees nothing of that image but what its
// own has as well. Where the agent does not answer, mirrors do.
//
// What is served was hashed when it came (package zimage/lazy), and the guest's
// kernel checks each block again. So this process can withhold bytes, and
// nothing worse.
//
// A read waits for its bytes. When they do not come in time, the disk has
// failed: that is said, and the reads go on waiting, since an error would have
// the guest's kernel panic over what is no fault of its disk. The agent ends
// the guest. The process ends when its file system is gone, which is when the
// agent has taken the mount away and the last VM has closed the file.
package serve
