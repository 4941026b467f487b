// SPDX-License-Identifier: Apache-2.0

package process

import (
	"errors"
	"sync"
	"syscall"
)

// Table knows which of the processes that end are ours. PID 1 is the parent
// of every orphan and has to collect them all; that must not take away the
// end of a process that someone waits for.
type Table struct {
	mu      sync.Mutex
	waiting map[int]chan syscall.WaitStatus
}

// NewTable makes an empty one.
func NewTable() *Table { return &Table{waiting: map[int]chan syscall.WaitStatus{}} }

// Start runs fork and returns where the end of the new process will be told.
// The lock is held meanwhile: a process that ends at once is not collected
// before it is known.
func (t *Table) Start(fork func() (int, error)) (int, <-chan syscall.WaitStatus, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	pid, err := fork()
	if err != nil {
		return 0, nil, err
	}
	ended := make(chan syscall.WaitStatus, 1)
	t.waiting[pid] = ended
	return pid, ended, nil
}

// Signal sends to a process as long as it is not collected: the number cannot
// have come to mean another.
func (t *Table) Signal(pid int, s syscall.Signal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[pid] == nil {
		return nil
	}
	return syscall.Kill(pid, s)
}

// SignalGroup sends to all of the session that a process leads.
func (t *Table) SignalGroup(pid int, s syscall.Signal) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.waiting[pid] == nil {
		return nil
	}
	return syscall.Kill(-pid, s)
}

// Reap collects all that have ended; it is called at every SIGCHLD.
func (t *Table) Reap() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case errors.Is(err, syscall.ECHILD), err == nil && pid == 0:
			return nil
		case err != nil:
			return err
		}
		if ended := t.waiting[pid]; ended != nil {
			delete(t.waiting, pid)
			ended <- status
		}
	}
}
