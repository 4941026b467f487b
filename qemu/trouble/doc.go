// SPDX-License-Identifier: Apache-2.0

// Package trouble boots nodes into trouble: PID 1 that panics, dies or hangs, an
// agent that does, memory and storage that run out, clocks that are wrong,
// ports that are missing, too little memory. Each row of its table shows that
// the fault was really there, and that the node ends well: it runs, or it says
// on screen and serial line what went wrong and what to do; and after the next
// boot the ledger knows of it.
//
// The rows take minutes (a watchdog waits for one): they are part of
// make test-boot. `make test` has the short ones in qemu/e2e.
package trouble
