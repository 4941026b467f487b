// SPDX-License-Identifier: Apache-2.0

//go:build !faults

package main

// extras are other programs that init keeps running: a production image has
// none.
var extras []string
