// SPDX-License-Identifier: Apache-2.0

package vm

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"regexp"
	"strings"
)

// Both hypervisors take options as "key=value,key=value", each with its own
// rules for what must be escaped. Instead of escaping, names that could mean
// two things are refused.
const (
	namePattern = `^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$`
	pathPattern = `^/[A-Za-z0-9/._+@-]*$`
)

// maxSocketPath is what fits in a Unix socket address, less the longest name
// that a driver puts into Dir.
const maxSocketPath = 107 - len("/vsock/v.sock_4294967295")

// Validate refuses what no hypervisor could run or what would not reach it as
// it was meant.
func (c Config) Validate() error {
	name, path := regexp.MustCompile(namePattern), regexp.MustCompile(pathPattern)
	clean := func(what, p string) error {
		if !path.MatchString(p) || filepath.Clean(p) != p {
			return fmt.Errorf("%s: path %q is not absolute, clean and of plain characters", what, p)
		}
		return nil
	}
	var errs []error
	if !name.MatchString(c.ID) {
		errs = append(errs, fmt.Errorf("id %q is no plain name", c.ID))
	}
	errs = append(errs, clean("dir", c.Dir), clean("kernel", c.Kernel), clean("initramfs", c.Initramfs))
	if len(c.Dir) > maxSocketPath {
		errs = append(errs, fmt.Errorf("dir %q is longer than %d bytes: sockets in it could not be named", c.Dir, maxSocketPath))
	}
	if c.VCPUs < 1 {
		errs = append(errs, fmt.Errorf("%d vcpus", c.VCPUs))
	}
	if c.MemoryMiB < 1 {
		errs = append(errs, fmt.Errorf("%d MiB of memory", c.MemoryMiB))
	}
	if c.CID < 3 {
		errs = append(errs, fmt.Errorf("vsock cid %d is reserved", c.CID))
	}
	if strings.ContainsFunc(c.Cmdline, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		errs = append(errs, errors.New("command line has control characters"))
	}
	serials := map[string]bool{}
	for i, d := range c.Disks {
		what := fmt.Sprintf("disk %d", i)
		errs = append(errs, clean(what, d.Path))
		if !name.MatchString(d.Serial) || len(d.Serial) > 20 || serials[d.Serial] {
			errs = append(errs, fmt.Errorf("%s: serial %q is no plain name of at most 20 bytes or is not the only one", what, d.Serial))
		}
		serials[d.Serial] = true
	}
	for i, n := range c.NICs {
		if _, err := net.ParseMAC(n.MAC); err != nil {
			errs = append(errs, fmt.Errorf("nic %d: %w", i, err))
		}
	}
	return errors.Join(errs...)
}
