// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	// lockdown lists the kernel's modes, the present one in brackets.
	lockdown = "/sys/kernel/security/lockdown"
	// enforce is Y where the kernel was told to take signed modules only.
	enforce = "/sys/module/module/parameters/sig_enforce"
)

// Insert loads one file. A module that is there already is no error. One that
// is compressed (.ko.xz) is unpacked by the kernel, which then checks the same
// signature.
//
// Of one that is not compressed the signature is left out where the kernel does
// not insist on it: it comes out of the same UKI as the kernel that would check
// it, so where firmware has not checked that (Secure Boot, which locks the
// kernel down) it says nothing, and the first check costs more than the drivers
// of a boot together.
func Insert(file string) error {
	var err error
	switch {
	case strings.HasSuffix(file, packed):
		err = fromFile(file, unix.MODULE_INIT_COMPRESSED_FILE)
		if errors.Is(err, unix.EOPNOTSUPP) {
			return fmt.Errorf("load module %s: %w: this kernel unpacks no modules", filepath.Base(file), err)
		}
	case insists(os.ReadFile):
		err = fromFile(file, 0)
	default:
		var b []byte
		if b, err = os.ReadFile(file); err == nil {
			err = unix.InitModule(Unsigned(b), "")
		}
	}
	switch {
	case err == nil, errors.Is(err, unix.EEXIST):
		return nil
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.EOPNOTSUPP), errors.Is(err, unix.EIO):
		return fmt.Errorf("%s: %w (%w)", filepath.Base(file), ErrNoDevice, err)
	}
	return fmt.Errorf("load module %s: %w", filepath.Base(file), err)
}

func fromFile(file string, flags int) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.FinitModule(int(f.Fd()), "", flags)
}

// insists says whether the kernel takes signed modules only. A kernel that does
// not say is taken for one that does.
func insists(read func(string) ([]byte, error)) bool {
	mode, err := read(lockdown)
	if err != nil || !strings.Contains(string(mode), "[none]") {
		return true
	}
	forced, err := read(enforce)
	return err != nil || strings.TrimSpace(string(forced)) != "N"
}
