// SPDX-License-Identifier: Apache-2.0

// Package boards holds one file per kind of machine that we boot on.
//
// A board is data: which kernel package, which module sets, which command
// line, how large the boot partition is. Adding a machine means writing a
// file; no code asks for a board by its name. The files here are in the program;
// another is read from where it stands (Open), and needs no program of its own.
package boards
