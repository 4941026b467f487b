// SPDX-License-Identifier: Apache-2.0

//go:build faults

package main

// extras of a test image: the program that puts faults in on request.
var extras = []string{"/bin/fault"}
