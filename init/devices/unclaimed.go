// SPDX-License-Identifier: Apache-2.0

package devices

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// PCI is where the kernel lists what is on the bus.
const PCI = "/sys/bus/pci/devices"

// Unclaimed lists the PCI devices that no driver has taken, as address, class
// and vendor:device in hexadecimal: what an operator looks for when a network
// card or a disk is missing, and what a board's module sets lack. Bridges need
// no driver and are left out.
func Unclaimed(dir string) ([]string, error) {
	all, err := os.ReadDir(dir)
	if os.IsNotExist(err) {
		return nil, nil // a machine without PCI
	}
	if err != nil {
		return nil, fmt.Errorf("list PCI devices: %w", err)
	}
	var out []string
	for _, d := range all {
		at := filepath.Join(dir, d.Name())
		if _, err := os.Lstat(filepath.Join(at, "driver")); err == nil {
			continue
		}
		read := func(name string) string {
			b, err := os.ReadFile(filepath.Join(at, name))
			if err != nil {
				return "?" // the device went away, or does not say
			}
			return strings.TrimPrefix(strings.TrimSpace(string(b)), "0x")
		}
		class := read("class")
		if strings.HasPrefix(class, "06") {
			continue
		}
		out = append(out, fmt.Sprintf("%s %s %s:%s", d.Name(), class, read("vendor"), read("device")))
	}
	return out, nil
}
