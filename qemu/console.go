// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
	"time"
	"unicode"
)

// Line is one line of a console and when its end arrived.
type Line struct {
	At   time.Time
	Text string
}

// Console keeps every line that a machine wrote to its serial port.
type Console struct {
	mu     sync.Mutex
	lines  []Line
	part   []byte
	ended  bool
	signal chan struct{} // closed and replaced at every change
}

func newConsole() *Console { return &Console{signal: make(chan struct{})} }

// escapes are the control sequences of ECMA-48 that firmware and shells paint
// with: CSI, OSC, and those of two or three characters.
var escapes = regexp.MustCompile("\x1b\\[[0-?]*[ -/]*[@-~]|\x1b\\][^\x07\x1b]*(?:\x07|\x1b\\\\)?|\x1b[ -/]*[0-~]")

// Plain takes out of a line what would steer the terminal that shows it.
func Plain(line string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) && r != '\t' {
			return -1
		}
		return r
	}, escapes.ReplaceAllString(line, ""))
}

// plainWriter writes whole lines, plain.
type plainWriter struct {
	w    io.Writer
	part []byte
}

func (p *plainWriter) Write(b []byte) (int, error) {
	p.part = append(p.part, b...)
	for {
		i := bytes.IndexByte(p.part, '\n')
		if i < 0 {
			return len(b), nil
		}
		line := p.part[:i]
		p.part = p.part[i+1:]
		if _, err := io.WriteString(p.w, Plain(string(line))+"\n"); err != nil {
			return len(b), err
		}
	}
}

// flush writes what has no end.
func (p *plainWriter) flush() {
	if len(p.part) > 0 {
		_, _ = io.WriteString(p.w, Plain(string(p.part))+"\n") // as a full disk before: the machine is off
		p.part = nil
	}
}

// copyFrom reads until r ends, and copies what it read to w.
func (c *Console) copyFrom(r io.Reader, w io.Writer) {
	buf := make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			// A full disk under the copy must not stop the machine.
			if _, werr := w.Write(buf[:n]); werr != nil {
				w = io.Discard
			}
			c.add(buf[:n])
		}
		if err != nil {
			c.mu.Lock()
			c.ended = true
			c.wake()
			c.mu.Unlock()
			return
		}
	}
}

func (c *Console) add(b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.part = append(c.part, b...)
	for {
		i := bytes.IndexByte(c.part, '\n')
		if i < 0 {
			break
		}
		c.lines = append(c.lines, Line{time.Now(), Plain(string(c.part[:i]))})
		c.part = c.part[i+1:]
	}
	c.wake()
}

func (c *Console) wake() {
	close(c.signal)
	c.signal = make(chan struct{})
}

// Mark is a place in the console: lines before it are not looked at.
type Mark int

// Mark returns the place behind the last whole line.
func (c *Console) Mark() Mark {
	c.mu.Lock()
	defer c.mu.Unlock()
	return Mark(len(c.lines))
}

// Lines returns the lines from m on.
func (c *Console) Lines(m Mark) []Line {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]Line(nil), c.lines[m:]...)
}

// ErrConsoleEnded says that the machine is gone.
var ErrConsoleEnded = errors.New("the machine ended")

// Expect waits for the first line from m on that matches, and returns it, its
// groups and the place behind it. Its error holds the last lines.
func (c *Console) Expect(ctx context.Context, m Mark, re *regexp.Regexp) (Line, []string, Mark, error) {
	for {
		c.mu.Lock()
		for ; int(m) < len(c.lines); m++ {
			if groups := re.FindStringSubmatch(c.lines[m].Text); groups != nil {
				line := c.lines[m]
				c.mu.Unlock()
				return line, groups, m + 1, nil
			}
		}
		ended, signal := c.ended, c.signal
		c.mu.Unlock()
		var err error
		if ended {
			err = ErrConsoleEnded
		} else {
			select {
			case <-signal:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return Line{}, nil, m, fmt.Errorf("expected a console line that matches %q: %w\nlast lines:\n%s", re, err, c.Tail(30))
	}
}

// Prompt waits until what stands behind the last whole line matches, and says
// when that was seen: a prompt has no end of line.
func (c *Console) Prompt(ctx context.Context, re *regexp.Regexp) (time.Time, error) {
	for {
		c.mu.Lock()
		found, ended, signal := re.MatchString(Plain(string(c.part))), c.ended, c.signal
		c.mu.Unlock()
		if found {
			return time.Now(), nil
		}
		err := ErrConsoleEnded
		if !ended {
			select {
			case <-signal:
				continue
			case <-ctx.Done():
				err = ctx.Err()
			}
		}
		return time.Time{}, fmt.Errorf("expected a prompt that matches %q: %w\nlast lines:\n%s", re, err, c.Tail(30))
	}
}

// Tail returns the last n lines.
func (c *Console) Tail(n int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	var b strings.Builder
	for _, l := range c.lines[max(0, len(c.lines)-n):] {
		fmt.Fprintf(&b, "  | %s\n", l.Text)
	}
	if len(c.part) > 0 {
		fmt.Fprintf(&b, "  | %s\n", Plain(string(c.part)))
	}
	return b.String()
}
