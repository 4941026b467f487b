// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"
)

// CPUTime is how long the emulator was on a processor, which does not depend on
// who else works here; 0 when it is gone.
func (m *Machine) CPUTime() time.Duration {
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Linux that counts
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", m.PID()))
	if err != nil {
		return 0
	}
	_, rest, _ := strings.Cut(string(b), ") ")
	f := strings.Fields(rest)
	if len(f) < 13 {
		return 0
	}
	user, uerr := strconv.ParseInt(f[11], 10, 64)
	system, serr := strconv.ParseInt(f[12], 10, 64)
	if uerr != nil || serr != nil {
		return 0
	}
	return time.Duration(user+system) * tick
}
