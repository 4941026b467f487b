// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/zos-node/zos/qemu"
)

// command runs a program to its end and returns its standard output. Its
// warnings are shown at once and kept for the summary; its failure carries the
// end of what it said.
func (c *chain) command(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	guard(cmd)
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	err := cmd.Run()
	c.warn(errs.String())
	if err != nil {
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
		return out.String(), &problem{
			what:     "command: " + strings.Join(append([]string{filepath.Base(name)}, args...), " "),
			expected: "exit code 0",
			todo:     "read what it said above, mend it, and run the same command again",
			err:      fmt.Errorf("%w\n%s", err, tail(errs.String()+out.String(), 25)),
		}
	}
	return out.String(), nil
}

// warning matches a line of log/slog of this level, and what commands of zos
// say themselves.
var warning = regexp.MustCompile(`(?m)^(?:time=\S+ level=(WARN .*)|(warning: .*))$`)

// warn shows the warnings in what a child said.
func (c *chain) warn(said string) {
	for _, m := range warning.FindAllStringSubmatch(said, -1) {
		line := qemu.Plain(m[1] + m[2])
		if slices.Contains(c.warnings, line) {
			continue
		}
		c.warnings = append(c.warnings, line)
		fmt.Fprintf(c.steps.out, "        %s\n", line)
	}
}

// guard puts a child into its own process group and makes it die with us, so
// that Ctrl-C ends the children in our order and nothing stays behind.
func guard(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}

// server is a long-running child that said that it is ready.
type server struct {
	name string
	log  string // its output
	cmd  *exec.Cmd
	done chan struct{} // closed when the child is gone
	err  error         // of Wait; read after done

	goodbye time.Duration // how long it may take to end in order; 0 is ten seconds
}

// sign is the line by which a child tells that it is ready, and that in words.
type sign struct {
	line  *regexp.Regexp
	means string
}

// startServer starts a child, copies its output to a log file and waits for
// the sign that it is ready. The matched groups are returned.
func startServer(ctx context.Context, log string, ready sign, limit time.Duration, name string, args ...string) (*server, []string, error) {
	f, err := os.Create(log)
	if err != nil {
		return nil, nil, fmt.Errorf("log of %s: %w", filepath.Base(name), err)
	}
	cmd := exec.Command(name, args...)
	guard(cmd)
	r, w := io.Pipe()
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		f.Close()
		return nil, nil, fmt.Errorf("start %s: %w", name, err)
	}
	s := &server{name: strings.Join(append([]string{filepath.Base(name)}, args[:min(2, len(args))]...), " "), log: log, cmd: cmd, done: make(chan struct{})}
	matched, copied := make(chan []string, 1), make(chan struct{})
	go func() {
		defer close(copied)
		defer f.Close()
		scan := bufio.NewScanner(r)
		scan.Buffer(nil, 1<<20)
		for scan.Scan() {
			line := qemu.Plain(scan.Text()) // people follow the log in a terminal
			fmt.Fprintln(f, line)
			if m := ready.line.FindStringSubmatch(line); m != nil {
				select {
				case matched <- m:
				default:
				}
			}
		}
	}()
	go func() {
		s.err = cmd.Wait()
		w.Close()
		<-copied // the log has its last words
		close(s.done)
	}()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case m := <-matched:
		return s, m, nil
	case <-s.done:
		err = fmt.Errorf("ended: %w\n%s", orExit(s.err), tailFile(log, 25))
	case <-timer.C:
		err = fmt.Errorf("not ready after %s\n%s", limit, tailFile(log, 25))
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.stop()
	return nil, nil, &problem{what: s.name, expected: ready.means, todo: "read " + log, err: err}
}

func orExit(err error) error {
	if err == nil {
		return errors.New("exit code 0")
	}
	return err
}

// gone says whether the child has ended.
func (s *server) gone() bool {
	if s == nil {
		return false
	}
	select {
	case <-s.done:
		return true
	default:
		return false
	}
}

// stop asks the child to end, asks again when its time is over (a node then
// ends at once), and at last ends it.
func (s *server) stop() {
	if s == nil {
		return
	}
	limit := s.goodbye
	if limit == 0 {
		limit = 10 * time.Second
	}
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGTERM, syscall.SIGKILL} {
		// The group may be gone already; that is what we want.
		if err := syscall.Kill(-s.cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
			fmt.Fprintf(os.Stderr, "stop %s: %v\n", s.name, err)
		}
		select {
		case <-s.done:
			return
		case <-time.After(limit):
			limit = 10 * time.Second
		}
	}
}

// portTaken says whether a child ended because it could not have its port: in
// the words of the kernel, or of QEMU, which gives no reason.
func portTaken(err error) bool {
	return strings.Contains(err.Error(), "address already in use") || strings.Contains(err.Error(), "Could not set up host forwarding rule")
}

// freePort returns want when it is free on loopback, else any free port.
func freePort(want int) (int, error) {
	for _, p := range []int{want, 0} {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", p))
		if err != nil {
			continue
		}
		port := l.Addr().(*net.TCPAddr).Port
		if err := l.Close(); err != nil {
			return 0, fmt.Errorf("close probe of port %d: %w", port, err)
		}
		return port, nil
	}
	return 0, errors.New("no free TCP port on 127.0.0.1")
}

func tail(s string, lines int) string {
	all := strings.Split(strings.TrimRight(s, "\n"), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}

func tailFile(path string, lines int) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return tail(string(b), lines)
}
