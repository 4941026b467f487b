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
	"strconv"
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
	// Following says that the agent has caught up with the ledger.
	Following = "following"
	// Status starts a packet with what the console shows, as JSON.
	Status = "status "
)

// maxPacket bounds what is read of one; a status is cut by the agent to less.
const maxPacket = 16 << 10

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
	Silence time.Duration                   // 0 takes the constant
	Asked   func(word string)               // told of "poweroff", "reboot", "blessed" and "following"
	Told    func(status []byte)             // told of a Status
	Began   func()                          // told of each start
	Ended   func(why string, last []string) // told of each end that was not asked for
	Score   int                             // of the kernel's out-of-memory killer, -1000 to 1000

	mu     sync.Mutex
	starts int
	line   *os.File // our end while it runs
	pid    int
	beat   time.Time // the last word, or the start
	alive  time.Time // the last word, or the first start
}

// Starts is how often the child was started.
func (c *Child) Starts() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts
}

// LastAlive is when the child last said that it is alive. Before the first
// word it is when the child was first started: that it was started again does
// not count.
func (c *Child) LastAlive() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.alive
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
	c.alive = time.Now()
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
		if c.Ended != nil {
			c.Ended(why, last)
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
	if c.Began != nil {
		c.Began()
	}
	if err := c.score(pid); err != nil {
		c.Log.Error("program", "program", c.Path, "err", err)
	}
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

// score tells the kernel whom to end when memory runs out, and whom not.
func (c *Child) score(pid int) error {
	if c.Score == 0 {
		return nil
	}
	err := os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid), strconv.AppendInt(nil, int64(c.Score), 10), 0)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ESRCH) {
		return nil // it has ended, which is told of
	}
	if err != nil {
		return fmt.Errorf("rank when memory runs out: %w", err)
	}
	return nil
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
			if quiet := time.Since(c.lastBeat()); quiet > limit {
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

func (c *Child) lastBeat() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.beat
}

// listen reads words until the line is closed.
func (c *Child) listen(line *os.File) {
	b := make([]byte, maxPacket)
	for {
		n, err := line.Read(b)
		if err != nil || n == 0 {
			return
		}
		switch word := string(b[:n]); word {
		case Alive:
			c.mu.Lock()
			c.beat = time.Now()
			c.alive = c.beat
			c.mu.Unlock()
		case PowerOff, Reboot, Blessed, Following:
			c.Asked(word)
		default:
			if status, ok := strings.CutPrefix(word, Status); ok && c.Told != nil {
				c.Told([]byte(status))
				continue
			}
			c.Log.Warn("unknown word from program", "program", c.Path, "word", word)
		}
	}
}

// reasons begin the lines with which Go's runtime ends a program.
var reasons = []string{"panic: ", "fatal error: ", "SIGQUIT: "}

// copy passes the child's output on and keeps its last lines, and before them
// the line that says why, where there is one. Lines of any length pass in
// pieces.
func (c *Child) copy(r io.Reader) []string {
	var last []string
	reason, since := "", 0 // lines since it
	in := bufio.NewReaderSize(r, 4096)
	for {
		b, _, err := in.ReadLine()
		if err != nil {
			if since > lastLines {
				last = append([]string{reason}, last...)
			}
			return last
		}
		line := strings.ToValidUTF8(string(b), "?")
		if _, err := io.WriteString(c.Console, line+"\n"); err != nil {
			c.Log.Error("console", "err", err)
		}
		if slices.ContainsFunc(reasons, func(p string) bool { return strings.HasPrefix(line, p) }) {
			reason, since = line, 0
		}
		if reason != "" {
			since++
		}
		if last = append(last, line); len(last) > lastLines {
			last = slices.Delete(last, 0, 1)
		}
	}
}
