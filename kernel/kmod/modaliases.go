// SPDX-License-Identifier: Apache-2.0

package kmod

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// maxModalias is more than a page, which is the most that sysfs gives.
const maxModalias = 8 << 10

// Modaliases lists those of all devices that a sysfs (normally /sys) knows, each
// once: the devices of its buses, of the two classes whose devices are on none,
// and the processors together (which choose kvm_amd or kvm_intel). To go through
// all that is below /sys/devices takes ten times as long, and even to list the
// folder of each device, as a pattern would, three times: every boot waits for
// this, so each file is asked for by its name.
func Modaliases(sys string) ([]string, error) {
	buses, err := children(filepath.Join(sys, "bus"))
	if err != nil {
		return nil, err
	}
	var folders []string
	for _, bus := range buses {
		folders = append(folders, filepath.Join("bus", bus, "devices"))
	}
	seen := map[string]bool{"": true}
	var all []string
	for _, folder := range append(folders, "class/dmi", "class/input", "devices/system") {
		dir := filepath.Join(sys, folder)
		devices, err := children(dir)
		if err != nil {
			return nil, err
		}
		if folder == "devices/system" {
			devices = []string{"cpu"}
		}
		for _, d := range devices {
			if s := modalias(dir + "/" + d + "/modalias"); !seen[s] {
				seen[s] = true
				all = append(all, s)
			}
		}
	}
	return all, nil
}

// children are the names in a folder, sorted; none where there is no folder.
func children(dir string) ([]string, error) {
	f, err := os.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at devices: %w", err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("look at devices: %w", err)
	}
	slices.Sort(names)
	return names, nil
}

// modalias reads one file. A device that has none, that went away meanwhile, or
// that answers with an error has nothing to say.
func modalias(name string) string {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	b := make([]byte, maxModalias)
	n, err := unix.Read(fd, b)
	if cerr := unix.Close(fd); err != nil || cerr != nil {
		return ""
	}
	return strings.TrimSpace(string(b[:n]))
}
