// SPDX-License-Identifier: Apache-2.0

package image

import (
	"debug/elf"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/u-root/mkuimage/cpio"

	"github.com/zos-node/zos/kernel"
)

// Share is what one kind of content takes of a UKI.
type Share struct {
	What   string `json:"what"`
	Files  int    `json:"files"`
	Bytes  int64  `json:"bytes"`  // unpacked
	Packed int64  `json:"packed"` // in the UKI; each share compressed by itself, so that all of them are a little more than the whole
}

// shares are the kinds, by how paths in the initramfs start.
var shares = []struct{ what, prefix string }{
	{"agent", "bin/agent"}, {"init", "init"}, {"hypervisor", kernel.HypervisorArchive[1:]}, {"drivers", "lib/modules/"}, {"firmware", "lib/firmware/"},
	{"test program", "bin/fault"}, {"lists, trust root", ""},
}

// Weigh says what takes the room of a UKI, the largest first, and which
// programs can be started on a node.
func Weigh(uki []byte) (all []Share, programs []string, err error) {
	u, err := ReadUKI(uki)
	if err != nil {
		return nil, nil, err
	}
	content := make([][]byte, len(shares))
	all = make([]Share, len(shares))
	for i, s := range shares {
		all[i].What = s.what
	}
	program := func(r cpio.Record, b []byte) error {
		if f, err := elf.NewFile(strings.NewReader(string(b))); err == nil && r.Mode&0o111 != 0 && (f.Type == elf.ET_EXEC || f.Type == elf.ET_DYN) {
			programs = append(programs, "/"+r.Name)
		}
		return nil
	}
	var hv kernel.Hypervisor
	err = eachFile(u.Initrd, func(r cpio.Record, b []byte) error {
		if r.Name == kernel.HypervisorPath[1:] {
			if err := json.Unmarshal(b, &hv); err != nil {
				return fmt.Errorf("%s: %w", r.Name, err)
			}
		}
		i := slices.IndexFunc(shares, func(s struct{ what, prefix string }) bool { return strings.HasPrefix(r.Name, s.prefix) })
		s := &all[i]
		s.Files++
		s.Bytes += int64(len(b))
		if shares[i].what != "hypervisor" {
			content[i] = append(content[i], b...)
			return program(r, b)
		}
		s.Files, s.Bytes, s.Packed = 0, 0, int64(len(b))
		return eachFile(b, func(r cpio.Record, b []byte) error {
			s.Files++
			s.Bytes += int64(len(b))
			return program(r, b)
		})
	})
	if err != nil {
		return nil, nil, fmt.Errorf("initramfs: %w", err)
	}
	for i, b := range content {
		if len(b) == 0 {
			continue
		}
		alone, err := packed(hv.Name, packing(u.Initrd), b)
		if err != nil {
			return nil, nil, err
		}
		all[i].Packed = int64(len(alone))
	}
	all = append(all, Share{"kernel", 1, int64(len(u.Linux)), int64(len(u.Linux))},
		Share{"systemd's stub, sections", 1, int64(len(uki) - len(u.Linux) - len(u.Initrd)), int64(len(uki) - len(u.Linux) - len(u.Initrd))})
	all = slices.DeleteFunc(all, func(s Share) bool { return s.Files == 0 })
	slices.SortStableFunc(all, func(a, b Share) int { return int(b.Packed - a.Packed) })
	return all, programs, nil
}
