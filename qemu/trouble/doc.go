// SPDX-License-Identifier: Apache-2.0

// Package trouble boots nodes into trouble: PID 1 that panics, dies or hangs.
// Each row of its table shows that the fault was really there, and that the
// node ends well: it says on screen and serial line what went wrong and what to
// do, starts again, and after that boot the ledger knows of it. A screen is
// looked at as a camera would, letter by letter.
//
// The rows take minutes (a watchdog waits for one): they are part of
// make test-boot. `make test` has a panic of init in qemu/e2e.
package trouble
