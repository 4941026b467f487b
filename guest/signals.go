// SPDX-License-Identifier: Apache-2.0

package main

import (
	"syscall"
)

// signals takes all signals that reach PID 1. What a person or the machine
// would end a system with ends the workload in order; what is meant for a
// program is handed on to it; everything else, and so whatever a workload of
// the same user could send, is ignored.
func (g *guest) signals() error {
	for s := range g.signal {
		switch s {
		case syscall.SIGCHLD:
			if err := g.table.Reap(); err != nil {
				return err
			}
		case syscall.SIGPWR, syscall.SIGTERM, syscall.SIGINT:
			g.end("signal " + s.String())
		case syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCONT:
			if pid := g.main.Load(); pid > 0 {
				if err := g.table.Signal(int(pid), s.(syscall.Signal)); err != nil {
					return err
				}
			}
		}
	}
	return nil
}
