// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the end-to-end tests: whole nodes, booted in QEMU, that
// follow a real ledger and fetch from real mirrors, with something wrong on
// purpose. The faults are put in from outside (a proxy before the ledger, a
// wrapper round the mirror) or by the fault program that test images alone
// carry; each test shows that its fault was really there.
package e2e
