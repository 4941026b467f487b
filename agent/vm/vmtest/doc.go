// SPDX-License-Identifier: Apache-2.0

// Package vmtest holds the one test suite that every driver of agent/vm
// passes, with the real guest program as the other side.
//
// A machine that runs tests seldom lets them run VMs. So TestNested boots a
// machine of its own in QEMU (emulated, if need be), in which KVM works, and
// runs this package's test binary again in there, as the child of a small
// PID 1 (TestMain). There, TestDrivers starts guests under each hypervisor.
// What it prints goes over the serial console and is judged outside.
package vmtest
