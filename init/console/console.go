// SPDX-License-Identifier: Apache-2.0

// Package console writes to every console of the machine without ever
// waiting for one: a serial port without a terminal, or a screen without
// power, must not stop PID 1.
package console

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// queue is how many writes a slow console may lag behind before text for it
// is dropped.
const queue = 512

// Consoles is an io.Writer to all consoles.
type Consoles struct {
	mu   sync.Mutex
	outs []*out
}

type out struct {
	f       *os.File
	ch      chan []byte
	left    atomic.Int64 // writes that the queue or the writer still holds
	dropped int
	serial  bool
}

// Open takes the kernel's own console (an open file) and those that
// sysfs lists beside it, such as "tty0 ttyS0": the last is the kernel's own.
func Open(own *os.File, active, dev string) *Consoles {
	c := &Consoles{}
	names := strings.Fields(active)
	last := ""
	if len(names) > 0 {
		last = names[len(names)-1]
	}
	c.add(own, !IsVT(last))
	for _, n := range names[:max(0, len(names)-1)] {
		// A console that cannot be opened is one that nobody reads.
		if f, err := os.OpenFile(dev+"/"+n, os.O_WRONLY|sysNonblock, 0); err == nil {
			c.add(f, !IsVT(n))
		}
	}
	return c
}

func (c *Consoles) add(f *os.File, serial bool) {
	o := &out{f: f, ch: make(chan []byte, queue), serial: serial}
	c.outs = append(c.outs, o)
	go func() {
		for b := range o.ch {
			// What cannot be shown here is shown on the others.
			_, _ = f.Write(b)
			o.left.Add(-1)
		}
	}()
}

// Write never waits and never fails.
func (c *Consoles) Write(b []byte) (int, error) {
	return c.write(b, false)
}

// Serial writes to the serial ones only.
func (c *Consoles) Serial(text string) { _, _ = c.write([]byte(text), true) } // it never fails

func (c *Consoles) write(b []byte, serialOnly bool) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	text := []byte(strings.ReplaceAll(string(b), "\n", "\r\n"))
	for _, o := range c.outs {
		if serialOnly && !o.serial {
			continue
		}
		if o.dropped > 0 && o.put(fmt.Appendf(nil, "(%d pieces of text dropped: the console is too slow)\r\n", o.dropped)) {
			o.dropped = 0
		}
		if !o.put(text) {
			o.dropped++
		}
	}
	return len(b), nil
}

// put queues text, if there is room for it.
func (o *out) put(text []byte) bool {
	o.left.Add(1)
	select {
	case o.ch <- text:
		return true
	default:
		o.left.Add(-1)
		return false
	}
}

// Drain gives the consoles a moment to show what they were given: a machine
// that ends takes with it what its serial port has not sent yet. It says
// whether everything was sent.
func (c *Consoles) Drain(limit time.Duration) bool {
	sent := make(chan bool, 1)
	go func() {
		all := true
		end := time.Now().Add(limit)
		for _, o := range c.outs {
			for o.left.Load() > 0 && time.Now().Before(end) {
				time.Sleep(5 * time.Millisecond)
			}
			all = all && o.left.Load() == 0
		}
		for _, o := range c.outs {
			_ = drain(o.f) // not every console has something to wait for
		}
		sent <- all
	}()
	select {
	case all := <-sent:
		return all
	case <-time.After(limit):
		return false
	}
}

// Failure is what a person in front of the machine has to know.
type Failure struct {
	Code     string // short and stable, to look up or to tell on the phone
	What     string
	Expected string
	Do       string
}

// Screen draws a failure so that it stands out of a scrolling console.
func (f Failure) Screen() string {
	bar := strings.Repeat("=", width)
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s\n  ZOS STOPPED  [%s]\n%s\n", bar, f.Code, bar)
	for _, part := range []struct{ name, text string }{{"what failed", f.What}, {"expected", f.Expected}, {"what to do", f.Do}} {
		fmt.Fprintf(&b, "  %s:\n", part.name)
		for _, line := range wrap(part.text, width-6) {
			fmt.Fprintf(&b, "      %s\n", line)
		}
	}
	fmt.Fprintf(&b, "%s\n", bar)
	return b.String()
}

func wrap(s string, limit int) []string {
	var lines []string
	for _, para := range strings.Split(s, "\n") {
		line := ""
		for _, w := range strings.Fields(para) {
			if line != "" && len(line)+1+len(w) > limit {
				lines = append(lines, line)
				line = ""
			}
			if line != "" {
				line += " "
			}
			line += w
		}
		lines = append(lines, line)
	}
	return lines
}
