// SPDX-License-Identifier: Apache-2.0

// Package health finds out whether the workload serves. The check is made in
// the guest, against the guest itself: what it proves does not depend on the
// node's network.
//
// The judgement (Judge) is apart from the probing (Prober), and pure.
package health

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/guest/wire"
)

// Judge turns results of checks into what the agent is told: the first
// result, every change, and the last word when the deadline passed without a
// success. A success makes it healthy at once; only so many failures in a row
// as the spec says make it sick again.
type Judge struct {
	Check wire.Check

	told    bool // something was sent
	healthy bool
	ever    bool // a check succeeded once
	failed  int64
}

// Result takes one result, age being the time since the process started.
// final means that no further check is wanted.
func (j *Judge) Result(err error, age time.Duration) (h wire.Health, tell, final bool) {
	if err == nil {
		j.failed, j.ever = 0, true
		tell = !j.told || !j.healthy
		j.told, j.healthy = true, true
		return wire.Health{OK: true, Detail: "the check succeeds"}, tell, false
	}
	h = wire.Health{Detail: err.Error()}
	if !j.ever {
		if age >= time.Duration(j.Check.DeadlineMs)*time.Millisecond {
			h.Final, h.Detail = true, fmt.Sprintf("no success within %d ms: %s", j.Check.DeadlineMs, h.Detail)
			return h, true, true
		}
		tell = !j.told
		j.told = true
		return h, tell, false
	}
	j.failed++
	if !j.healthy || j.failed < j.Check.Failures {
		return h, false, false
	}
	j.healthy = false
	h.Detail = fmt.Sprintf("%d failures in a row: %s", j.failed, h.Detail)
	return h, true, false
}

// firstPause is how long a process is left alone before it is first asked: a
// check at once cannot succeed and takes from what starts.
const firstPause = 100 * time.Millisecond

// Pause is the time before check n, counted from 0. Until the first success it
// grows from firstPause to the spec's interval, which then holds: a workload is
// known to serve soon after it does.
func (j *Judge) Pause(n int) time.Duration {
	interval := time.Duration(j.Check.IntervalMs) * time.Millisecond
	if j.ever {
		return interval
	}
	return min(firstPause<<min(n, 16), interval)
}

// Prober makes one check.
type Prober struct {
	Check wire.Check
	Hosts []string // addresses of the guest, tried in order
	// Exec runs a program as the workload and fails when it ends with
	// anything but 0.
	Exec func(ctx context.Context, args []string) error
}

// Once makes the check once, bounded by its timeout.
func (p *Prober) Once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(p.Check.TimeoutMs)*time.Millisecond)
	defer cancel()
	switch p.Check.Kind {
	case "none":
		return nil // the process is there, or this would not be asked
	case "exec":
		return p.Exec(ctx, p.Check.Args)
	case "tcp", "http":
		var errs []error
		for _, host := range p.Hosts {
			err := p.connect(ctx, net.JoinHostPort(host, strconv.Itoa(p.Check.Port)))
			if err == nil {
				return nil
			}
			errs = append(errs, err)
		}
		return errors.Join(errs...)
	}
	return fmt.Errorf("unknown kind of check %q", p.Check.Kind)
}

func (p *Prober) connect(ctx context.Context, address string) (err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() {
		if e := conn.Close(); err == nil && e != nil {
			err = e
		}
	}()
	if p.Check.Kind == "tcp" {
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok {
		if err := conn.SetDeadline(deadline); err != nil {
			return err
		}
	}
	return get(conn, address, p.Check.Path)
}

// get asks by hand: net/http would make PID 1 half as large again, for one
// request and one line of the answer.
func get(conn io.ReadWriter, host, path string) error {
	if strings.ContainsAny(path, " \r\n") || !strings.HasPrefix(path, "/") {
		return fmt.Errorf("path %q", path)
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUser-Agent: zos-guest\r\nAccept: */*\r\nConnection: close\r\n\r\n", path, host); err != nil {
		return err
	}
	line, err := bufio.NewReader(io.LimitReader(conn, 4096)).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no status line: %w", err)
	}
	version, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
	code, _, _ := strings.Cut(rest, " ")
	n, err := strconv.Atoi(code)
	if err != nil || len(code) != 3 || !strings.HasPrefix(version, "HTTP/1.") {
		return fmt.Errorf("no HTTP answer: %.60q", line)
	}
	if n < 200 || n > 399 {
		return fmt.Errorf("status %s", rest)
	}
	return nil
}

// Run checks until ctx ends or nothing more is to be found out. What was told
// last is told again at every tick until ctx ends, however long a check takes:
// it is how the agent knows that this guest is not hung.
func Run(ctx context.Context, check wire.Check, once func(context.Context) error, tell func(wire.Health), ticks <-chan time.Time) {
	r := repeater{send: tell}
	go r.run(ctx, ticks)
	judge, started := Judge{Check: check}, time.Now()
	for n := 0; ; n++ {
		if check.Kind != "none" {
			select {
			case <-ctx.Done():
				return
			case <-time.After(judge.Pause(n)):
			}
		}
		err := once(ctx)
		if ctx.Err() != nil {
			return
		}
		h, say, final := judge.Result(err, time.Since(started))
		if say {
			r.tell(h)
		}
		if final || check.Kind == "none" {
			return
		}
	}
}

// repeater says the last thing again.
type repeater struct {
	send func(wire.Health)
	mu   sync.Mutex // also keeps an old word from overtaking a new one
	last *wire.Health
}

func (r *repeater) tell(h wire.Health) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last = &h
	r.send(h)
}

func (r *repeater) run(ctx context.Context, ticks <-chan time.Time) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticks:
		}
		r.mu.Lock()
		if r.last != nil && ctx.Err() == nil {
			r.send(*r.last)
		}
		r.mu.Unlock()
	}
}
