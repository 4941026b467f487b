// SPDX-License-Identifier: Apache-2.0

// Package trouble boots nodes into trouble: PID 1 that panics, dies or hangs, an
// agent that does, memory and storage that run out, a serial port that is
// missing, too little memory. Each row of its tables shows that the fault was
// really there, and that the node ends well: it runs on, or it says on screen
// and serial line what went wrong and what to do, and starts again; after that
// the ledger knows of it. A screen is looked at as a camera would, letter by
// letter.
//
// Beside them stand the ways in which a network and a clock of a node go wrong:
// cables are sockets whose other ends are in the test (wires), so that a switch, or
// a time server, is what the test makes of it.
//
// The rows take minutes (a watchdog waits for one): they are part of
// make test-boot. `make test` has a panic of init in qemu/e2e.
package trouble
