// SPDX-License-Identifier: Apache-2.0

// Command idle is the init that boot times are compared with: it says how
// long the kernel took to get to it, and turns the machine off. No node image
// carries it.
package main

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	var ts unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	fmt.Printf("idle init: uptimeMs=%d err=%v\n", ts.Nano()/int64(time.Millisecond), err)
	// The serial port has to get rid of the line.
	time.Sleep(100 * time.Millisecond)
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Fprintln(os.Stderr, err)
	}
}
