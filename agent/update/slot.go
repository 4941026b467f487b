// SPDX-License-Identifier: Apache-2.0

package update

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/ledger"
)

// Paths on the boot partition.
const (
	slotsDir = "EFI/Linux"
	partPath = slotsDir + "/zos-next.part" // the loader looks at *.efi only
	// memoryPath is what a node must not forget when it starts again.
	memoryPath = "loader/zos-update.json"
	newPath    = "loader/zos-update.new"
)

// tries is how often the loader starts an image that nobody has blessed.
const tries = 3

// slot is one image on the boot partition.
type slot struct {
	Version string
	Counted bool // not blessed
	Left    int  // tries
	Done    int
}

var slotName = regexp.MustCompile(`(?i)^zos-([0-9.]+)(?:\+([0-9]{1,9})(?:-([0-9]{1,9}))?)?\.efi$`)

// parseSlot reads a file name; what is not ours is none.
func parseSlot(name string) (slot, bool) {
	m := slotName.FindStringSubmatch(name)
	if m == nil || !ledger.ValidVersion(m[1]) {
		return slot{}, false
	}
	s := slot{Version: m[1], Counted: m[2] != ""}
	s.Left, _ = strconv.Atoi(m[2]) // "" is 0
	s.Done, _ = strconv.Atoi(m[3])
	return s, true
}

// name is the file name, as systemd-boot writes it.
func (s slot) name() string {
	switch {
	case !s.Counted:
		return fmt.Sprintf("zos-%s.efi", s.Version)
	case s.Done == 0:
		return fmt.Sprintf("zos-%s+%d.efi", s.Version, s.Left)
	}
	return fmt.Sprintf("zos-%s+%d-%d.efi", s.Version, s.Left, s.Done)
}

func (s slot) path() string { return slotsDir + "/" + s.name() }

// file is an image as it stands there: its path keeps the case that the disk has.
type file struct {
	slot
	Path string
}

// slots lists the images.
func slots(v *fat.Volume) ([]file, error) {
	names, err := v.List(slotsDir)
	if err != nil {
		return nil, err
	}
	var all []file
	for _, n := range names {
		if s, ok := parseSlot(n); ok {
			all = append(all, file{s, slotsDir + "/" + n})
		}
	}
	slices.SortFunc(all, func(a, b file) int {
		return cmp.Or(ledger.CompareVersions(a.Version, b.Version), strings.Compare(a.Path, b.Path))
	})
	return all, nil
}

// named finds the image of a version; one that is counted counts first, for
// two names of one file can be what a cut-off renaming leaves.
func named(all []file, version string) *file {
	var found *file
	for i := range all {
		if all[i].Version == version && (found == nil || all[i].Counted) {
			found = &all[i]
		}
	}
	return found
}

// ours says which files may be taken away when a power cut broke them: all that
// can be written again. Never the last image that is blessed: that one is not
// written to, and a cut does not break it.
func ours(path string) bool {
	_, isSlot := parseSlot(strings.TrimPrefix(path, slotsDir+"/"))
	return isSlot && strings.HasPrefix(path, slotsDir+"/") || path == partPath || path == memoryPath || path == newPath
}
