// SPDX-License-Identifier: Apache-2.0

// Package image puts bootable media together from parts.
//
//	programs + modules + root ──▶ initramfs (cpio, lz4 or zstd)
//	stub + kernel + initramfs + command line ──▶ UKI (one PE file)
//	systemd-boot + UKI + seed ──▶ boot partition (fat32) ──▶ disk images (GPT), ISO
//	UKI ──▶ netboot: HTTP boot and TFTP of the same file, a script for iPXE
//
// The UKI is the artefact; media only carry it, all of them the same bytes. The same inputs
// give the same bytes: no clock, no random number and no file system's order
// enters any of them.
package image
