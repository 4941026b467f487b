// SPDX-License-Identifier: Apache-2.0

// Package faulty puts faults between a program and the kernel, for tests of
// what keeps files: it is the program's tracer, counts the calls that change
// something below a folder, and at one of them kills the program, or lets the
// disk be full from there on. A test does so at each call in turn, and looks at
// what is left. It works on amd64 only, whose calls it knows.
package faulty
