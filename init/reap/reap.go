// SPDX-License-Identifier: Apache-2.0

// Package reap owns wait4 for PID 1. One loop collects every child that ends;
// those that init started itself stand in a table, so nobody's exit status is
// stolen. The others are orphans that the kernel handed to PID 1 (guests whose
// agent died among them).
//
// os/exec is not used in PID 1: its Wait would race with the loop.
package reap

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
)

// Status is how a child ended.
type Status struct {
	PID    int
	Status syscall.WaitStatus
}

// String says it for people: "exit code 3" or "signal killed".
func (s Status) String() string {
	if s.Status.Signaled() {
		return "signal " + s.Status.Signal().String()
	}
	return fmt.Sprintf("exit code %d", s.Status.ExitStatus())
}

// Reaper is the table of children.
type Reaper struct {
	mu     sync.Mutex
	owned  map[int]chan Status
	Orphan func(Status) // told of every child that nobody waits for
}

// New makes an empty table.
func New(orphan func(Status)) *Reaper {
	return &Reaper{owned: map[int]chan Status{}, Orphan: orphan}
}

// Start starts a child and returns where its end will be told. The table is
// locked meanwhile, so a child that ends at once is found in it.
func (r *Reaper) Start(argv0 string, argv []string, attr *syscall.ProcAttr) (int, <-chan Status, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid, err := syscall.ForkExec(argv0, argv, attr)
	if err != nil {
		return 0, nil, fmt.Errorf("start %s: %w", argv0, err)
	}
	ch := make(chan Status, 1)
	r.owned[pid] = ch
	return pid, ch, nil
}

// Collect takes every child that has ended.
func (r *Reaper) Collect() error {
	for {
		r.mu.Lock()
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		if err != nil || pid == 0 {
			r.mu.Unlock()
			if err == nil || errors.Is(err, syscall.ECHILD) || errors.Is(err, syscall.EINTR) {
				return nil
			}
			return fmt.Errorf("wait for children: %w", err)
		}
		ch, ours := r.owned[pid]
		delete(r.owned, pid)
		r.mu.Unlock()
		if ours {
			ch <- Status{pid, ws}
		} else {
			r.Orphan(Status{pid, ws})
		}
	}
}

// Run collects at every SIGCHLD.
func (r *Reaper) Run(children <-chan os.Signal, fail func(error)) {
	for range children {
		if err := r.Collect(); err != nil {
			fail(err)
		}
	}
}
