// SPDX-License-Identifier: Apache-2.0

// Package image puts bootable media together from parts.
//
//	programs + modules + root ──▶ initramfs (cpio, zstd)
//	stub + kernel + initramfs + command line ──▶ UKI (one PE file)
//	UKI + seed ──▶ disk image (GPT, one FAT32 ESP)
//
// The UKI is the artefact; the disk image only carries it. The same inputs
// give the same bytes: no clock, no random number and no file system's order
// enters any of them.
package image
