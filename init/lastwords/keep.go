// SPDX-License-Identifier: Apache-2.0

package lastwords

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

const (
	kmsg   = "/dev/kmsg"
	always = "/sys/module/printk/parameters/always_kmsg_dump"
	// notice is the level of our lines: in the log, not on the consoles, which
	// show them anyway.
	notice = "<5>"
	// maxLine is what one line of the kernel's log holds, with room for its head.
	maxLine = 900
)

// Keep writes why the node stops into the kernel's log and has that log stored
// at the restart that follows, as it is after a panic. The reason comes last:
// the store is small and keeps the end.
func Keep(reason, more string) error {
	lines := append(strings.Split(strings.TrimSpace(more), "\n"), Mark+oneLine(reason))
	f, err := os.OpenFile(kmsg, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("last words: %w", err)
	}
	for _, l := range lines {
		if len(l) > maxLine {
			l = l[:maxLine]
		}
		if _, werr := f.WriteString(notice + l + "\n"); werr != nil {
			err = errors.Join(err, fmt.Errorf("last words: %w", werr))
		}
	}
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.WriteFile(always, []byte("Y"), 0); err != nil {
		return fmt.Errorf("last words: keep the log at a restart: %w", err)
	}
	return nil
}

func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }
