// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"io/fs"
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
		var st unix.Statfs_t
		if err := unix.Statfs(d.Path, &st); err != nil {
			return 0, fmt.Errorf("disk %s: %w", d.Serial, err)
		}
		if st.Type != unix.TMPFS_MAGIC {
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

// score ranks a VMM when the node's memory runs out: the agent has a low one
// from init, which its children would inherit, and must outlive them.
const score = "500"

// expendable sets it.
func expendable(pid int) error {
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), []byte(score), 0)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended, which is noticed elsewhere
	}
	if err != nil {
		return fmt.Errorf("rank of process %d when memory runs out: %w", pid, err)
	}
	return nil
}
