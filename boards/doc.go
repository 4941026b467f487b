// SPDX-License-Identifier: Apache-2.0

// Package boards holds one file per kind of machine that we boot on.
//
// A board is data: which kernel package, which module sets, which command
// line, how large the boot partition is. Adding a machine means adding a
// file; no code asks for a board by its name.
package boards
