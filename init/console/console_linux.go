// SPDX-License-Identifier: Apache-2.0

package console

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// sysNonblock keeps the open itself from waiting for a carrier.
const sysNonblock = unix.O_NONBLOCK | unix.O_NOCTTY

// drain waits until the terminal has sent what was written to it: tcdrain(3).
func drain(f *os.File) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return fmt.Errorf("drain %s: %w", f.Name(), err)
	}
	var failed error
	if err := conn.Control(func(fd uintptr) { failed = unix.IoctlSetInt(int(fd), unix.TCSBRK, 1) }); err != nil {
		return fmt.Errorf("drain %s: %w", f.Name(), err)
	}
	if failed != nil {
		return fmt.Errorf("drain %s: %w", f.Name(), failed)
	}
	return nil
}
