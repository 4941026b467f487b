// SPDX-License-Identifier: Apache-2.0

// Package kernel says where the foreign parts of an image come from: the
// Linux kernel and its modules, systemd's UEFI stub, and the hypervisor.
//
// None of them is in our repository, and none is built by us. Kernel and stub
// are Debian's stock packages (sub-package debian), resolved into a lock file
// by SHA-256. The hypervisor is Cloud Hypervisor's release binary by digest, a
// local file that the user vouches for, or, said loudly, Debian's QEMU.
//
// Sub-package modules chooses kernel modules by table; sub-package kmod loads
// them in the running node or guest.
package kernel
