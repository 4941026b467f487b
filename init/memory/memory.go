// SPDX-License-Identifier: Apache-2.0

// Package memory decides how much memory the kernel holds back. With
// transparent huge pages on, Linux raises its reserve (vm.min_free_kbytes) to
// what its compaction of huge pages would like, 22 MiB and more a zone whatever
// the machine's size: of a node of 2 GiB that takes 70 MiB, which no guest can
// have. A node holds back in proportion, and leaves huge pages to who asks for
// them: hypervisors do for their guests' memory, small programs only lose by
// them.
package memory

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"
)

const (
	// part of the memory is held back, but not less than least: network cards
	// take it from there when they cannot wait.
	part     = 128
	leastKiB = 8 << 10

	hugePages = "/sys/kernel/mm/transparent_hugepage/enabled"
	onRequest = "madvise"
	minFree   = "/proc/sys/vm/min_free_kbytes"
	meminfo   = "/proc/meminfo"
)

// Reserve is what the kernel holds back, in KiB, of a machine with total; never
// more than what it would by itself.
func Reserve(totalKiB, ownKiB int64) int64 {
	return min(ownKiB, max(leastKiB, totalKiB/part))
}

// Set makes it so. A kernel without huge pages has a small reserve already.
func Set() error {
	// First, as the kernel computes its reserve anew with this.
	if err := os.WriteFile(hugePages, []byte(onRequest), 0); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("huge pages: %w", err)
	}
	info, err := os.ReadFile(meminfo)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	total, err := field(info, "MemTotal:")
	if err != nil {
		return err
	}
	text, err := os.ReadFile(minFree)
	if err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	own, err := strconv.ParseInt(strings.TrimSpace(string(text)), 10, 64)
	if err != nil {
		return fmt.Errorf("memory: %s: %w", minFree, err)
	}
	if err := os.WriteFile(minFree, []byte(strconv.FormatInt(Reserve(total, own), 10)), 0); err != nil {
		return fmt.Errorf("memory: %w", err)
	}
	return nil
}

// field reads a number of KiB.
func field(info []byte, name string) (int64, error) {
	for scan := bufio.NewScanner(bytes.NewReader(info)); scan.Scan(); {
		if f := strings.Fields(scan.Text()); len(f) == 3 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("memory: no %s in %s", name, meminfo)
}
