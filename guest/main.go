// SPDX-License-Identifier: Apache-2.0

// Command guest is PID 1 of a workload VM.
//
// It finds the root by the hash on the kernel's command line, tells the agent
// what it is made of, sets up what the signed spec says, starts one process,
// watches it and reports its end. There is no shell, no login and nothing that
// listens: it dials the host over vsock, and whatever goes wrong ends in a
// Fatal message, a line on the console and a powered-off machine.
//
// The parts that can be tested without a kernel of their own are packages:
// wire (protocol), link (connection), verity, root, net, process, output,
// health, power. This package is the order in which they happen.
package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
)

func main() {
	if os.Getpid() != 1 {
		fmt.Fprintln(os.Stderr, "guest: this is PID 1 of a workload VM; it does nothing anywhere else")
		os.Exit(2)
	}
	// The first sign of life, on the serial console.
	fmt.Fprintln(os.Stderr, "guest: PID 1 started")
	// Two threads are plenty for what happens here, and leave the processors
	// to the workload; so does a small heap.
	runtime.GOMAXPROCS(2)
	debug.SetMemoryLimit(24 << 20)
	newGuest().run()
}
