// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

func TestCapabilities(t *testing.T) {
	// The order of the table is the kernel's numbering.
	for name, n := range map[string]uintptr{"CAP_CHOWN": unix.CAP_CHOWN, "CAP_NET_BIND_SERVICE": unix.CAP_NET_BIND_SERVICE, "CAP_SYS_ADMIN": unix.CAP_SYS_ADMIN,
		"CAP_SYS_BOOT": unix.CAP_SYS_BOOT, "CAP_MKNOD": unix.CAP_MKNOD, "CAP_SYSLOG": unix.CAP_SYSLOG, "CAP_CHECKPOINT_RESTORE": unix.CAP_CHECKPOINT_RESTORE} {
		if got, err := Capabilities([]string{name}); err != nil || len(got) != 1 || uintptr(got[0]) != n || got[0].String() != name {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if len(names) != unix.CAP_LAST_CAP+1 {
		t.Errorf("%d names, the kernel has %d", len(names), unix.CAP_LAST_CAP+1)
	}
	for _, bad := range [][]string{{"NET_RAW"}, {"cap_chown"}, {""}, {"CAP_CHOWN", "CAP_CHOWN"}} {
		if got, err := Capabilities(bad); err == nil {
			t.Errorf("%v gave %v", bad, got)
		}
	}
}

func TestSignal(t *testing.T) {
	if s, err := Signal("SIGTERM"); err != nil || s != syscall.SIGTERM {
		t.Errorf("%v, %v", s, err)
	}
	for _, bad := range []string{"", "TERM", "15", "SIGNONE"} {
		if s, err := Signal(bad); err == nil {
			t.Errorf("%q gave %v", bad, s)
		}
	}
}

func TestLook(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"a/app": 0o755, "b/app": 0o755, "a/data": 0o644, "b/tool": 0o755} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, nil, mode); err != nil {
			t.Fatal(err)
		}
	}
	env := []string{"A=1", "PATH=" + dir + "/none:" + dir + "/a:b"}
	for name, want := range map[string]string{"app": "/a/app", "tool": "/b/tool", "b/tool": "/b/tool", "./a/app": "/a/app", dir + "/b/app": "/b/app"} {
		if got, err := Look(name, env, dir); err != nil || got != dir+want {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	if _, err := Look("data", env, dir); !errors.Is(err, os.ErrPermission) {
		t.Errorf("not executable: %v", err)
	}
	for _, missing := range []string{"none", "./none", "/none"} {
		if _, err := Look(missing, env, dir); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: %v", missing, err)
		}
	}
	if _, err := Look(dir, env, dir); err == nil {
		t.Error("a folder was accepted")
	}
}

func TestMemory(t *testing.T) {
	total, err := MemTotal("MemTotal:         249812 kB\nMemFree:  1 kB\n")
	if err != nil || total != 249812<<10 {
		t.Errorf("%d, %v", total, err)
	}
	if _, err := MemTotal("MemFree: 1 kB\n"); err == nil {
		t.Error("no total was accepted")
	}
	for total, want := range map[int64]int64{40 << 20: 20 << 20, 64 << 20: 40 << 20, 1 << 30: 960 << 20, 16 << 30: 15 << 30} {
		if got := MemoryLimit(total); got != want {
			t.Errorf("of %d MiB: %d MiB, want %d", total>>20, got>>20, want>>20)
		}
	}
	if n, err := event("low 0\noom 2\noom_kill 1\noom_group_kill 0\n", "oom_kill"); err != nil || n != 1 {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := event("low 0\n", "oom_kill"); err == nil {
		t.Error("a missing counter was accepted")
	}
}

func TestTable(t *testing.T) {
	table := NewTable()
	start := func(args ...string) (int, <-chan syscall.WaitStatus) {
		t.Helper()
		pid, ended, err := table.Start(func() (int, error) {
			return syscall.ForkExec(args[0], args, &syscall.ProcAttr{Files: []uintptr{0, 1, 2}, Sys: &syscall.SysProcAttr{Setsid: true}})
		})
		if err != nil {
			t.Skipf("SKIP reaper: %v", err)
		}
		return pid, ended
	}
	wait := func(pid int, ended <-chan syscall.WaitStatus) syscall.WaitStatus {
		t.Helper()
		// Wait without collecting, as SIGCHLD would tell; then reap.
		if err := unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if err := table.Reap(); err != nil {
			t.Fatal(err)
		}
		return <-ended
	}
	_, first := start("/bin/false")
	second, killed := start("/bin/sleep", "1000")
	if err := table.SignalGroup(second, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := wait(second, killed); !s.Signaled() || s.Signal() != syscall.SIGKILL {
		t.Errorf("killed: %v", s)
	}
	if err := table.Signal(second, syscall.SIGTERM); err != nil {
		t.Errorf("a process that is gone: %v", err)
	}
	for len(first) == 0 { // it may have been collected above, or not have ended yet
		if err := unix.Waitid(unix.P_ALL, 0, nil, unix.WEXITED|unix.WNOWAIT, nil); err != nil {
			t.Fatal(err)
		}
		if err := table.Reap(); err != nil {
			t.Fatal(err)
		}
	}
	if s := <-first; !s.Exited() || s.ExitStatus() != 1 {
		t.Errorf("ended: %v", s)
	}
}

// TestForkRefuses what could only start as something else than the spec says.
func TestForkRefuses(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for want, p := range map[string]wire.Process{
		"no program":               {Cwd: "/"},
		"not a folder":             {Args: []string{"/bin/true"}, Cwd: file},
		`working directory "/none`: {Args: []string{"/bin/true"}, Cwd: "/none"},
		"it is not executable":     {Args: []string{file}, Cwd: "/"},
		"no such file":             {Args: []string{"/none"}, Cwd: "/"},
	} {
		pid, err := Command{Process: p, Cgroup: -1, Stdout: os.Stdout, Stderr: os.Stderr}.Fork()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: process %d, %v", want, pid, err)
		}
	}
}

// TestDropWantsWhatItKeeps: a process with less than its spec says is not that
// spec's. The thread is thrown away.
func TestDropWantsWhatItKeeps(t *testing.T) {
	done := make(chan error)
	go onThread(func() { done <- Drop([]Capability{63}) })
	if err := <-done; err == nil || os.Geteuid() == 0 && !strings.Contains(err.Error(), "CAP_63 is not to be had") {
		t.Errorf("a capability that no kernel has: %v", err)
	}
}

// The thread's name space and its children's rights, on this kernel.
func TestThread(t *testing.T) {
	rights := func() string {
		t.Helper()
		b, err := os.ReadFile("/proc/self/status")
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "CapInh:")
		rest, _, _ = strings.Cut(rest, "Seccomp:")
		return rest
	}
	before := rights()
	if os.Getuid() != 0 {
		t.Skip("SKIP thread: only root has rights to drop")
	}
	root := t.TempDir()
	if err := unix.Mount("cgroup2", root, "cgroup2", 0, ""); errors.Is(err, unix.EPERM) {
		t.Skipf("SKIP thread: mount cgroup2: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Errorf("unmount cgroup2: %v", err)
		}
	})
	thread, err := NewThread()
	if err != nil {
		t.Fatal(err)
	}
	if err := thread.Do(func() error { panic("x") }); err == nil || !strings.Contains(err.Error(), "x") {
		t.Errorf("panic: %v", err)
	}
	keep := []Capability{unix.CAP_NET_BIND_SERVICE}
	if err := thread.Do(func() error { return Drop(keep) }); err != nil {
		t.Fatal(err)
	}
	if after := rights(); after != before {
		t.Errorf("the other threads' rights changed: %s, before %s", after, before)
	}
	for name, uid := range map[string]int{"root": 0, "user": 1234} {
		out, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		c := Command{Process: wire.Process{Args: []string{"cat", "/proc/self/status"}, Cwd: "/", UID: uid, GID: 99}, Capabilities: keep, Stdout: w, Stderr: w}
		cgroup, err := os.Open(root)
		if err != nil {
			t.Fatal(err)
		}
		c.Cgroup = int(cgroup.Fd())
		table := NewTable()
		var pid int
		err = thread.Do(func() (err error) { pid, _, err = table.Start(c.Fork); return err })
		if err := errors.Join(w.Close(), cgroup.Close()); err != nil {
			t.Fatal(err)
		}
		if err != nil {
			t.Fatalf("fork into a cgroup: %v", err)
		}
		b := make([]byte, 1<<16)
		n := 0
		for {
			m, err := out.Read(b[n:])
			n += m
			if err != nil {
				break
			}
		}
		if err := errors.Join(out.Close(), unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT, nil), table.Reap()); err != nil {
			t.Fatal(err)
		}
		const only = "0000000000000400"
		for _, want := range []string{"CapPrm:\t" + only, "CapEff:\t" + only, "CapBnd:\t" + only, "NoNewPrivs:\t1", "Gid:\t99\t99\t99\t99", "Groups:\t \n"} {
			if !strings.Contains(string(b[:n]), want) {
				t.Errorf("%s: no %q in\n%s", name, want, b[:n])
			}
		}
	}
}
