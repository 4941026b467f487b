// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/health"
	"github.com/zos-node/zos/guest/net"
	"github.com/zos-node/zos/guest/process"
	"github.com/zos-node/zos/guest/wire"
)

// running is the workload's process.
type running struct {
	pid     int
	ended   <-chan syscall.WaitStatus
	started int64
	drained <-chan struct{} // both streams came to their end
}

// run starts the process and waits for its end, wished or not.
func (w *workload) run(phase *string) (wire.Exit, error) {
	r, err := w.spawn()
	if err != nil {
		return wire.Exit{}, err
	}
	*phase = "run"
	w.main.Store(int64(r.pid))
	w.link.Started(wire.Started{PID: r.pid, UptimeMs: r.started})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	time.AfterFunc(startLimit, w.started)
	w.background("health", func() error {
		ticks := time.NewTicker(wire.HealthEvery) // not stopped: Run returns before the repeating ends
		health.Run(ctx, w.config.Check, w.prober().Once, func(h wire.Health) {
			if h.OK {
				w.started()
			}
			w.link.Health(h)
		}, ticks.C)
		return nil
	})
	var status syscall.WaitStatus
	requested := false
	select {
	case status = <-r.ended:
	case <-w.stop:
		requested = true
		if status, err = w.halt(r); err != nil {
			return wire.Exit{}, err
		}
	case f := <-w.failed:
		*phase = f.phase
		return wire.Exit{}, f.err
	}
	cancel()
	w.main.Store(0)
	return w.exit(r, status, requested)
}

// spawn starts the process with its streams on pipes.
func (w *workload) spawn() (running, error) {
	outR, outW, err := os.Pipe()
	if err != nil {
		return running{}, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		return running{}, err
	}
	// Programs open /dev/stdout again by name, as their own user.
	for _, f := range []*os.File{outW, errW} {
		if err := f.Chown(w.config.Process.UID, w.config.Process.GID); err != nil {
			return running{}, err
		}
	}
	c := process.Command{Process: w.config.Process, Capabilities: w.caps, Cgroup: w.cgroup.FD(), Stdout: outW, Stderr: errW}
	r := running{started: uptime()}
	err = w.thread.Do(func() (err error) {
		r.pid, r.ended, err = w.table.Start(c.Fork)
		return err
	})
	if err = errors.Join(err, outW.Close(), errW.Close()); err != nil {
		return running{}, err
	}
	drained, streams := make(chan struct{}), make(chan struct{}, 2)
	for name, f := range map[string]*os.File{"stdout": outR, "stderr": errR} {
		w.background(name, func() error {
			defer func() { streams <- struct{}{} }()
			return w.collect(name, f)
		})
	}
	go func() { <-streams; <-streams; close(drained) }()
	r.drained = drained
	return r, nil
}

// startLimit is how long a start may take at most, as far as reading ahead goes.
const startLimit = time.Minute

// started has the kernel read ahead of the root as usual: the start is over.
func (w *workload) started() {
	w.calm.Do(func() {
		if err := w.near.On(); err != nil {
			say("%v", err) // the root is read as before, only slowly
		}
	})
}

// ahead uses the time until the agent says that the process may start. Of a root
// that is still arriving only what the start needs is read.
func (w *workload) ahead() {
	if w.near != nil {
		return
	}
	err := w.thread.Do(process.Command{Process: w.config.Process}.Ahead)
	if err != nil {
		say("read the program ahead: %v", err) // whatever is wrong with it, starting it tells
	}
}

// collect moves a stream into the ring, which never makes it wait.
func (w *workload) collect(stream string, f *os.File) error {
	buf := make([]byte, 16<<10)
	for {
		n, err := f.Read(buf)
		w.ring.Add(stream, buf[:n])
		if errors.Is(err, io.EOF) {
			return f.Close()
		}
		if err != nil {
			return fmt.Errorf("%s: %w", stream, err)
		}
	}
}

// halt asks the process to end, and makes it when the grace is over.
func (w *workload) halt(r running) (syscall.WaitStatus, error) {
	if err := w.table.Signal(r.pid, w.stopSignal); err != nil {
		return 0, fmt.Errorf("stop signal: %w", err)
	}
	grace := time.Duration(w.config.Process.StopGraceMs) * time.Millisecond
	select {
	case s := <-r.ended:
		return s, nil
	case <-time.After(grace):
	}
	say("the process did not end within %s of %s", grace, w.config.Process.StopSignal)
	if err := w.cgroup.Kill(lastWords); err != nil {
		return 0, err
	}
	return <-r.ended, nil
}

// exit makes the record. Whatever the process left behind ends with it, which
// also closes the last writers of its streams.
func (w *workload) exit(r running, status syscall.WaitStatus, requested bool) (wire.Exit, error) {
	e := wire.Exit{StartedMs: r.started, EndedMs: uptime(), Requested: requested}
	if status.Signaled() {
		e.Code, e.Signal = -1, unix.SignalName(status.Signal())
	} else {
		e.Code = status.ExitStatus()
	}
	var err error
	if e.OOM, err = w.cgroup.OOM(); err != nil {
		return e, err
	}
	if err := w.cgroup.Kill(lastWords); err != nil {
		return e, err
	}
	<-r.drained
	say("the process ended: code=%d signal=%q oom=%t", e.Code, e.Signal, e.OOM)
	return e, nil
}

// prober makes health checks in the workload's place.
func (w *workload) prober() *health.Prober {
	p := &health.Prober{Check: w.config.Check, Hosts: []string{"127.0.0.1"}, Exec: w.exec}
	for _, i := range w.config.Interfaces {
		if plan, err := net.Parse(i); err == nil { // it was parsed before, in check
			p.Hosts = append(p.Hosts, plan.Address.Addr().String())
		}
	}
	return p
}

// exec runs a check's program like the workload: its user, rights and limits.
func (w *workload) exec(ctx context.Context, args []string) error {
	c := process.Command{Process: w.config.Process, Capabilities: w.caps, Cgroup: w.cgroup.FD(), Stdout: w.null, Stderr: w.null}
	c.Args = args
	var pid int
	var ended <-chan syscall.WaitStatus
	err := w.thread.Do(func() (err error) {
		pid, ended, err = w.table.Start(c.Fork)
		return err
	})
	if err != nil {
		return err
	}
	select {
	case s := <-ended:
		if s.Signaled() {
			return fmt.Errorf("%s: %s", args[0], unix.SignalName(s.Signal()))
		}
		if s.ExitStatus() != 0 {
			return fmt.Errorf("%s: exit status %d", args[0], s.ExitStatus())
		}
		return nil
	case <-ctx.Done():
		err := fmt.Errorf("%s: %w", args[0], ctx.Err())
		if kill := w.table.SignalGroup(pid, syscall.SIGKILL); kill != nil {
			return errors.Join(err, kill)
		}
		<-ended
		return err
	}
}
