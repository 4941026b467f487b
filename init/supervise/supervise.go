// SPDX-License-Identifier: Apache-2.0

// Package supervise keeps the agent running: it starts it with a line on fd 3,
// passes its output to the consoles, listens for its heartbeat, and starts it
// again with growing waits when it ends or falls silent. Guests are not the
// agent's children in any way that matters: they run on.
package supervise

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/init/reap"
)

// The words on the line; see agent/initlink for the other end.
const (
	Alive    = "alive"
	PowerOff = "poweroff"
	Reboot   = "reboot"
	Shutdown = "shutdown"
	Blessed  = "blessed"
)

// Silence is how long an agent may say nothing before it is ended; it beats
// every five seconds.
const Silence = 60 * time.Second

// lastLines is how much of the child's output is shown again when it ends.
const lastLines = 8

// Child is one program that init keeps running.
type Child struct {
	Path    string
	Env     []string
	Beats   bool // it has a line on fd 3 and must say that it is alive
	Reaper  *reap.Reaper
	Console io.Writer
	Log     *slog.Logger
	Silence time.Duration     // 0 takes the constant
	Asked   func(word string) // told of "poweroff", "reboot" and "blessed"

	mu     sync.Mutex
	line   *os.File // our end while it runs
	pid    int
	beat   time.Time
	starts int
}

// Starts is how often the child was started.
func (c *Child) Starts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts
}

// LastBeat is when the child last said that it is alive.
func (c *Child) LastBeat() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beat
}

// Say sends a word to the running child.
func (c *Child) Say(word string) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.line == nil {
		return errors.New("it is not running")
	}
	if _, err := c.line.Write([]byte(word)); err != nil {
		return fmt.Errorf("say %s: %w", word, err)
	}
	return nil
}

// Run starts the child again and again until ctx is over.
func (c *Child) Run(ctx context.Context) {
	c.mu.Lock()
	c.beat = time.Now() // the machine has just started: that counts
	c.mu.Unlock()
	var wait time.Duration
	for n := 1; ctx.Err() == nil; n++ {
		start := time.Now()
		c.mu.Lock()
		c.starts = n
		c.mu.Unlock()
		why, last := c.once()
		if ctx.Err() != nil {
			return
		}
		wait = Next(wait, time.Since(start))
		c.Log.Error("program ended; it is started again", "program", c.Path, "why", why, "ran", time.Since(start).Round(time.Millisecond), "starts", n, "wait", wait)
		for _, l := range last {
			c.Log.Error("its last words", "program", c.Path, "line", l)
		}
		select {
		case <-time.After(wait):
		case <-ctx.Done():
		}
	}
}

// once runs the child to its end.
func (c *Child) once() (why string, last []string) {
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Sprintf("pipe: %v", err), nil
	}
	defer r.Close()
	files := []uintptr{uintptr(unix.Stdin), w.Fd(), w.Fd()}
	null, err := os.Open(os.DevNull)
	if err != nil {
		w.Close()
		return fmt.Sprintf("no %s: %v", os.DevNull, err), nil
	}
	defer null.Close()
	files[0] = null.Fd()
	var line *os.File
	if c.Beats {
		ours, theirs, err := pair()
		if err != nil {
			w.Close()
			return err.Error(), nil
		}
		defer theirs.Close()
		line, files = ours, append(files, theirs.Fd())
	}
	pid, end, err := c.Reaper.Start(c.Path, []string{c.Path}, &syscall.ProcAttr{
		Dir: "/", Env: c.Env, Files: files, Sys: &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		if line != nil {
			line.Close()
		}
		return err.Error(), nil
	}
	c.Log.Info("program started", "program", c.Path, "pid", pid)
	tail := make(chan []string, 1)
	go func() { tail <- c.copy(r) }()
	stop := c.attach(pid, line)
	status := <-end
	silent := stop()
	why = status.String()
	if silent != "" {
		why = silent
	}
	select {
	case last = <-tail:
	case <-time.After(time.Second): // a grandchild may hold the pipe
	}
	return why, last
}

// pair makes the line; both ends are close-on-exec.
func pair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("line to the agent: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "agent"), os.NewFile(uintptr(fds[1]), "init"), nil
}

// attach listens to a running child; the returned function ends that and
// says why the child was ended, if it was.
func (c *Child) attach(pid int, line *os.File) (stop func() string) {
	limit := c.Silence
	if limit == 0 {
		limit = Silence
	}
	c.mu.Lock()
	c.line, c.pid, c.beat = line, pid, time.Now()
	c.mu.Unlock()
	if line == nil {
		return func() string { return "" }
	}
	why := make(chan string, 1)
	done := make(chan struct{})
	go c.listen(line)
	go func() {
		tick := time.NewTicker(limit / 10)
		defer tick.Stop()
		for {
			select {
			case <-done:
				why <- ""
				return
			case <-tick.C:
			}
			if quiet := time.Since(c.LastBeat()); quiet > limit {
				text := fmt.Sprintf("no heartbeat for %s", quiet.Round(time.Second))
				c.Log.Error("program is ended", "program", c.Path, "pid", pid, "why", text)
				if err := unix.Kill(pid, unix.SIGKILL); err != nil && !errors.Is(err, unix.ESRCH) {
					c.Log.Error("end program", "pid", pid, "err", err)
				}
				why <- text
				return
			}
		}
	}()
	return func() string {
		close(done)
		c.mu.Lock()
		c.line, c.pid = nil, 0
		c.mu.Unlock()
		line.Close()
		return <-why
	}
}

// listen reads words until the line is closed.
func (c *Child) listen(line *os.File) {
	b := make([]byte, 64)
	for {
		n, err := line.Read(b)
		if err != nil || n == 0 {
			return
		}
		switch word := string(b[:n]); word {
		case Alive:
			c.mu.Lock()
			c.beat = time.Now()
			c.mu.Unlock()
		case PowerOff, Reboot, Blessed:
			c.Asked(word)
		default:
			c.Log.Warn("unknown word from program", "program", c.Path, "word", word)
		}
	}
}

// copy passes the child's output on and keeps its last lines. Lines of any
// length pass in pieces.
func (c *Child) copy(r io.Reader) []string {
	var last []string
	in := bufio.NewReaderSize(r, 4096)
	for {
		b, _, err := in.ReadLine()
		if err != nil {
			return last
		}
		line := strings.ToValidUTF8(string(b), "?")
		if _, err := io.WriteString(c.Console, line+"\n"); err != nil {
			c.Log.Error("console", "err", err)
		}
		if last = append(last, line); len(last) > lastLines {
			last = slices.Delete(last, 0, 1)
		}
	}
}
