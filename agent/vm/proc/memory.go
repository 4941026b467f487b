// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/vm"
)

// Memory is the limit of a VM's cgroup: the guest's RAM, what the VMM itself
// needs, its bounded files, and writable disks that lie in a tmpfs. The pages
// of those belong to whoever writes them first, which is the VMM, and without
// swap they can never be given back: a guest that fills its volume would have
// its VMM killed.
func Memory(cfg vm.Config, overheadMiB int64) (int64, error) {
	limit := (int64(cfg.MemoryMiB) + overheadMiB) << 20
	limit += 3 * 2 * keep
	for _, d := range cfg.Disks {
		if d.ReadOnly {
			continue
		}
		var fs unix.Statfs_t
		if err := unix.Statfs(d.Path, &fs); err != nil {
			return 0, fmt.Errorf("disk %s: %w", d.Serial, err)
		}
		if fs.Type != unix.TMPFS_MAGIC {
			continue
		}
		info, err := os.Stat(d.Path)
		if err != nil {
			return 0, fmt.Errorf("disk %s: %w", d.Serial, err)
		}
		limit += info.Size()
	}
	return limit, nil
}
