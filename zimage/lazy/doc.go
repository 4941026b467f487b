// SPDX-License-Identifier: Apache-2.0

// Package lazy reads the disk of a Zero-Image before all of it has arrived.
//
// A read of bytes that are not there yet waits for their chunks, which are
// then fetched ahead of everything else. Meanwhile the rest arrives: first
// what an earlier start read, in the order in which it did (the trace), then
// everything else from the front to the back. A trace is a hint: it may be
// wrong, or somebody's lie, and only costs time.
//
// A start pack (package zimage/pack) may bring single blocks of 4 KiB (Expect, Put,
// Packed): a read that wants no others waits for no chunk, and the chunks that the
// pack has something of are not fetched before the start is calm. When all of such
// a chunk comes, it is hashed as a whole like any other, and lies over the same
// bytes. What is read is noted in blocks too, for the next pack. The pack's order
// also says what a start comes to next (Options.Next), which may be brought to the
// reader before it asks; that counts as read.
//
// Nothing is served that was not hashed when it came. What the guest gets is
// checked once more by its kernel, against the verity root.
//
// A read never fails because a mirror is slow: it waits. But not for ever: a
// read that has waited for the deadline fails the disk, for good, and Failed
// tells whoever has to end the deployment and to record why.
//
// This is the pure part: how the disk is shown to a hypervisor, as a file
// served over FUSE by a process of its own, is not here.
package lazy
