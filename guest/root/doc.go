// SPDX-License-Identifier: Apache-2.0

// Package root builds the file system that the workload sees.
//
// From below: the verity device's EROFS, read-only; over it a layer with the
// spec's files, the generated ones (/etc/hosts) and folders to mount on, in a
// tmpfs; both merged by an overlay without an upper layer, which nobody can
// write to; on that tmpfs and volume mounts, and /proc, /sys and /dev of as
// little as programs need.
//
// The switch to it. The initramfs is the kernel's rootfs, which has no parent
// mount and which pivot_root therefore refuses to leave. Moving the new root
// over "/" and chroot are the usual way out; chroot alone is a path, not a
// boundary. Here both are used, in a mount namespace of the workload's own
// (PID 1 stays outside of it, with its own /proc, /dev and cgroups): first a
// tmpfs is moved over the rootfs and entered, so that the thread's root is a
// mount like any other; from there pivot_root goes to the finished root and
// the tmpfs is detached. What is left in the namespace is the workload's root
// and what is mounted on it: no path, no open directory and no second chroot
// leads to the initramfs.
package root
