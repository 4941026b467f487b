// SPDX-License-Identifier: Apache-2.0

package console

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Virtual terminals of the screen: the log is on the first, as the kernel has
// it; the panel on the second. Alt with a function key changes between them.
const (
	LogVT   = 1
	PanelVT = 2

	vtActivate = 0x5606 // VT_ACTIVATE of linux/vt.h
)

// IsVT says whether a console of sysfs' list is the screen.
func IsVT(name string) bool {
	n, ok := strings.CutPrefix(name, "tty")
	return ok && strings.Trim(n, "0123456789") == ""
}

// Activate shows a virtual terminal.
func Activate(dev string, vt int) error {
	f, err := os.OpenFile(dev+"/tty0", os.O_WRONLY|sysNonblock, 0)
	if err != nil {
		return fmt.Errorf("screen: %w", err)
	}
	err = unix.IoctlSetInt(int(f.Fd()), vtActivate, vt)
	if err := errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("show terminal %d: %w", vt, err)
	}
	return nil
}

// Rows of a terminal; 25 where it does not say.
func Rows(f *os.File) int {
	const usual = 25
	w, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	if err != nil || w.Row == 0 {
		return usual
	}
	return int(w.Row)
}

// lineLimit is how much of a line is read; nothing that the menu knows is longer.
const lineLimit = 256

// Lines passes typed lines on until the console is gone. The terminal itself
// echoes and lets a person correct what was typed. What is longer than a line
// can be comes in pieces, which the menu does not know.
func Lines(r io.Reader, take func(line string)) error {
	in := bufio.NewReaderSize(r, lineLimit)
	for {
		b, _, err := in.ReadLine()
		if err != nil {
			return err
		}
		take(string(b))
	}
}
