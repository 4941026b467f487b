// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Cgroup is the workload's control group.
type Cgroup struct {
	path string
	dir  *os.File
}

// reserve is the memory that the workload cannot have, so that PID 1 and the
// kernel live on when it runs out of its own: a sixteenth, and at least this.
const reserve = 24 << 20

// MemoryLimit of a guest with so much memory.
func MemoryLimit(total int64) int64 { return max(total-max(reserve, total/16), total/2) }

// MemTotal reads the kernel's own figure from /proc/meminfo's text.
func MemTotal(meminfo string) (int64, error) {
	for line := range strings.Lines(meminfo) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "MemTotal:" && f[2] == "kB" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, fmt.Errorf("MemTotal: %w", err)
			}
			return kb << 10, nil
		}
	}
	return 0, errors.New("no MemTotal")
}

// NewCgroup makes it below the mounted root of cgroup2.
func NewCgroup(root string, memory int64, pids int) (*Cgroup, error) {
	c := &Cgroup{path: filepath.Join(root, "workload")}
	if err := put(root, "cgroup.subtree_control", "+memory +pids"); err != nil {
		return nil, err
	}
	if err := os.Mkdir(c.path, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	for _, kv := range [][2]string{
		{"memory.max", strconv.FormatInt(memory, 10)},
		{"memory.oom.group", "1"}, // never a workload of which a part is missing
		{"pids.max", strconv.Itoa(pids)},
	} {
		if err := put(c.path, kv[0], kv[1]); err != nil {
			return nil, err
		}
	}
	var err error
	if c.dir, err = os.Open(c.path); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return c, nil
}

// FD for clone3.
func (c *Cgroup) FD() int { return int(c.dir.Fd()) }

func put(dir, name, value string) error {
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cgroup %s: %w", name, err)
	}
	return nil
}

// OOM says whether the kernel killed something in it for lack of memory.
func (c *Cgroup) OOM() (bool, error) {
	b, err := os.ReadFile(filepath.Join(c.path, "memory.events"))
	if err != nil {
		return false, fmt.Errorf("cgroup: %w", err)
	}
	n, err := event(string(b), "oom_kill")
	return n > 0, err
}

// event reads a "name number" line.
func event(text, name string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 2 && f[0] == name {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("cgroup: no %s in %q", name, text)
}

// Kill ends all processes in it and waits until none is left.
func (c *Cgroup) Kill(limit time.Duration) error {
	if err := put(c.path, "cgroup.kill", "1"); err != nil {
		return err
	}
	events, err := os.Open(filepath.Join(c.path, "cgroup.events"))
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	deadline := time.Now().Add(limit)
	for {
		b := make([]byte, 256)
		n, err := events.ReadAt(b, 0)
		if n == 0 && err != nil {
			return errors.Join(fmt.Errorf("cgroup: %w", err), events.Close())
		}
		populated, err := event(string(b[:n]), "populated")
		left := time.Until(deadline)
		if err != nil || populated == 0 || left <= 0 {
			if err == nil && populated != 0 {
				err = fmt.Errorf("cgroup: processes are left after %s", limit)
			}
			return errors.Join(err, events.Close())
		}
		// The kernel marks the file as changed (POLLPRI) when it empties.
		fds := []unix.PollFd{{Fd: int32(events.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return errors.Join(fmt.Errorf("cgroup: %w", err), events.Close())
		}
	}
}
