// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Root is the cgroup that holds one cgroup per VM.
const Root = "/sys/fs/cgroup/zos"

func cgroupPath(id string) string { return filepath.Join(Root, id) }

// makeCgroup makes the VM's cgroup with its limits and opens it, for clone3 to
// start the VMM in it: there is no moment in which it runs outside.
func makeCgroup(id string, memory int64, pids int) (*os.File, error) {
	if err := os.MkdirAll(Root, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	for _, dir := range []string{filepath.Dir(Root), Root} {
		if err := put(dir, "cgroup.subtree_control", "+memory +pids"); err != nil {
			return nil, err
		}
	}
	dir := cgroupPath(id)
	// An empty one is the rest of a VM that ended while no agent was there; one
	// with processes in it is a VM that runs, which nobody may start twice.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("a VM %q runs already: %w", id, err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	f, err := fill(dir, memory, pids)
	if err != nil {
		return nil, errors.Join(err, os.Remove(dir))
	}
	return f, nil
}

func fill(dir string, memory int64, pids int) (*os.File, error) {
	for _, kv := range [][2]string{
		{"memory.max", strconv.FormatInt(memory, 10)},
		{"memory.oom.group", "1"}, // half a VMM is worse than none
		{"pids.max", strconv.Itoa(pids)},
	} {
		if err := put(dir, kv[0], kv[1]); err != nil {
			return nil, err
		}
	}
	// A kernel without swap does not have the file, and needs no limit.
	if err := put(dir, "memory.swap.max", "0"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("cgroup: %w", err)
	}
	return f, nil
}

func put(dir, name, value string) error {
	// Without O_CREATE: in cgroupfs a missing file is a missing controller.
	f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("cgroup: %w", err)
	}
	_, err = f.WriteString(value)
	if err = errors.Join(err, f.Close()); err != nil {
		return fmt.Errorf("cgroup %s = %s: %w", filepath.Join(dir, name), value, err)
	}
	return nil
}

// killCgroup ends all processes of a VM; one without a cgroup has none.
func killCgroup(id string) error {
	if err := put(cgroupPath(id), "cgroup.kill", "1"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// removeCgroup waits until the kernel has let go of the last process: a
// cgroup can stay busy for moments after its processes were reaped.
func removeCgroup(ctx context.Context, id string) error {
	for {
		err := os.Remove(cgroupPath(id))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if !errors.Is(err, unix.EBUSY) {
			return fmt.Errorf("cgroup: %w", err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("cgroup %s stays busy: %w", id, ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}
