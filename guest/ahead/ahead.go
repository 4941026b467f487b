// SPDX-License-Identifier: Apache-2.0

// Package ahead says how far the kernel reads ahead of the root.
//
// A kernel reads 128 KiB around each page that a program touches, and dm-verity
// 256 KiB of hashes with each that it needs. Of a disk that is here that costs
// nothing. Of one that is still arriving all of it would have to come before the
// program goes on; with a start pack just the pages come that an earlier start
// read. So while a guest starts from an image that is still arriving (Word on the
// kernel's command line, from the agent), nothing is read ahead (Off), and when it
// serves, as usual (On). A file keeps what held when it was opened.
package ahead

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Arriving says whether the kernel's command line has a word.
func Arriving(cmdline, word string) bool { return slices.Contains(strings.Fields(cmdline), word) }

// switches of the kernel, below sysfs, and what has it read single blocks.
func switches(device string) [][2]string {
	return [][2]string{
		{"block/" + device + "/queue/read_ahead_kb", "0"},
		{"module/dm_verity/parameters/prefetch_cluster", "4096"}, // a block of hashes
	}
}

// Saved is how it was.
type Saved map[string]string

// Off has nothing be read ahead of a device. A switch that this kernel does not
// have is left out.
func Off(sys, device string) (Saved, error) {
	was := Saved{}
	for _, s := range switches(device) {
		name := filepath.Join(sys, s[0])
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(name, []byte(s[1]), 0)
		}
		if err != nil {
			return was, fmt.Errorf("read ahead: %w", err)
		}
		was[name] = strings.TrimSpace(string(b))
	}
	return was, nil
}

// On makes it as it was.
func (was Saved) On() error {
	var errs []error
	for name, value := range was {
		errs = append(errs, os.WriteFile(name, []byte(value), 0))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	return nil
}
