// SPDX-License-Identifier: Apache-2.0

// Package qemu is the rig: it boots node images in QEMU, reads their
// consoles as an operator would, presses the power button, and leaves nothing
// behind. It decides which accelerator works by trying it: a /dev/kvm that
// opens may still hang every kernel.
//
// The network is QEMU's user network: the host's loopback is 10.0.2.2 inside,
// and ports of the machine appear on 127.0.0.1 alone.
package qemu
