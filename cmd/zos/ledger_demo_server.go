// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"
)

// demoServer is one validator's process.
type demoServer struct {
	dir, url string
	cmd      *exec.Cmd
	done     chan struct{}
	err      error
	says     *childSays
	left     bool // it ended by itself
}

func (a *app) demoServe(ctx context.Context, dir string, port int, gone chan<- *demoServer) (*demoServer, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	s := &demoServer{dir: dir, cmd: exec.Command(exe, "ledger", "serve", dir, "--json", "--listen", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))), done: make(chan struct{}), says: &childSays{to: a.err}}
	s.cmd.Stderr = s.says
	// In a group of its own, so that Ctrl-C reaches it through us, in order.
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		return nil, fmt.Errorf("start a validator: %w", err)
	}
	if err := s.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a validator: %w", err)
	}
	lines := make(chan []byte, 1)
	go func() {
		line, readErr := bufio.NewReader(out).ReadBytes('\n')
		if readErr == nil {
			lines <- line
		}
		s.err = s.says.reason(s.cmd.Wait())
		close(s.done)
		gone <- s
	}()
	select {
	case line := <-lines:
		var ready struct{ URL string }
		if err := json.Unmarshal(line, &ready); err != nil {
			return nil, errors.Join(fmt.Errorf("%s: %w", dir, err), s.end())
		}
		s.url = ready.URL
		return s, nil
	case <-s.done:
		return nil, fmt.Errorf("%s did not start: %w", dir, s.err)
	case <-ctx.Done():
		return nil, errors.Join(ctx.Err(), s.end())
	}
}

// childSays hands on what a validator logs, but keeps the error with which it
// ends, a line of JSON: this program says it, in its own form.
type childSays struct {
	to   io.Writer
	line []byte
	err  string
}

func (c *childSays) Write(b []byte) (int, error) {
	c.line = append(c.line, b...)
	for {
		i := bytes.IndexByte(c.line, '\n')
		if i < 0 {
			return len(b), nil
		}
		line := c.line[:i+1]
		var said struct {
			Error string
			Exit  int
		}
		if err := json.Unmarshal(line, &said); err == nil && said.Error != "" {
			c.err = said.Error
		} else if _, err := c.to.Write(line); err != nil {
			return 0, err
		}
		c.line = c.line[i+1:]
	}
}

// reason is why the process ended, when it said so.
func (c *childSays) reason(ended error) error {
	if ended == nil || c.err == "" {
		return ended
	}
	return fmt.Errorf("%s (%w)", c.err, ended)
}

// end stops the process in order, and after a while at once.
func (s *demoServer) end() error {
	if s.left {
		return nil
	}
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", s.dir, err)
	}
	select {
	case <-s.done:
	case <-time.After(2 * stopGrace):
		if err := s.cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("stop %s: %w", s.dir, err)
		}
		<-s.done
	}
	if s.says.err != "" {
		fmt.Fprintf(s.says.to, "validator %s has ended: %v\n", s.dir, s.err)
	}
	return nil
}
