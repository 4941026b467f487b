// SPDX-License-Identifier: Apache-2.0

// Package update brings another version of the node's image onto the boot
// partition, lets the loader try it, and makes it the node's own once it has
// proved itself.
//
// # The files
//
// Below EFI/Linux of the boot partition stand UKIs, whose names say where they
// are in their lives. The names are those of systemd-boot's Automatic Boot
// Assessment:
//
//	zos-1.4.0+3.efi     three tries left: the loader takes the newest such
//	zos-1.4.0+2-1.efi   and counts each in the name before it starts it
//	zos-1.4.0+0-3.efi   no try left: the loader goes back to what is below
//	zos-1.4.0.efi       blessed: it runs from now on
//
// There is always a blessed one, and it is never touched: an update is written
// over the other one. What is not whole has another name, in another folder,
// which no loader looks into.
//
// # The order
//
// Free space on the boot partition is looked at before anything is fetched, and
// again before anything is changed. The image arrives in memory, chunk by chunk
// where its release binds a list of them: each is held against the list before
// it is kept, and what is kept outlives the agent. The whole is hashed there, and
// looked into: board, version and signature, and whether what this node has
// sealed would open under it. Then: the idle image leaves the loader's folder;
// it is overwritten; what was written is read back from the disk and hashed;
// it gets its name with three tries; the guests end in order, in the time that
// their specs give them and not before a ledger is followed; the machine starts
// again. A power cut between any two of these leaves a node that boots,
// and the next start goes on. Overwriting instead of deleting and making anew
// keeps the space in the file's hands: a FAT that is cut off in the middle of
// a deletion loses what was to become free.
//
// # The verdict
//
// A trial is healthy when init has loaded all drivers, the hypervisor is there,
// and the agent has followed the ledger for a while without a break. Then the
// name loses its counter. If that does not come in time, or the node's state does
// not open under the image, the agent takes the last tries away itself; if the
// agent does not come up, init starts the machine again (init/trial); if neither
// does, the loader counts. What came of it is kept beside the images until the
// ledger has it.
package update
