// SPDX-License-Identifier: Apache-2.0

package health

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/guest/wire"
)

func TestJudge(t *testing.T) {
	check := wire.Check{DeadlineMs: 1000, Failures: 3}
	// each step is a result (+ or -) at a time in ms, and what is told: "" nothing, "+", "-", "!" final.
	for name, c := range map[string]string{
		"serves at once":        "+0:+ +10: +20:",
		"comes up":              "-0:- -10: +20:+ +30:",
		"one failure is let go": "+0:+ -10: -20: +30: -40: -50:",
		"three are not":         "+0:+ -10: -20: -30:- -40: +50:+",
		"never":                 "-0:- -500: -1000:!",
		"late but once":         "-0:- +1500:+ -2000: -2001: -2002:-",
		"deadline at once":      "-1000:!",
	} {
		j := Judge{Check: check}
		for i, step := range strings.Fields(c) {
			var at int
			want := step[strings.IndexByte(step, ':')+1:]
			if _, err := fmt.Sscanf(step[1:], "%d", &at); err != nil {
				t.Fatal(err)
			}
			var err error
			if step[0] == '-' {
				err = errors.New("refused")
			}
			h, tell, final := j.Result(err, time.Duration(at)*time.Millisecond)
			got := ""
			switch {
			case final:
				got = "!"
			case tell && h.OK:
				got = "+"
			case tell:
				got = "-"
			}
			if got != want || h.Final != final {
				t.Errorf("%s, step %d: %q, want %q", name, i, got, want)
			}
		}
	}
}

type talk struct {
	io.Reader
	bytes.Buffer
}

func (t *talk) Read(b []byte) (int, error) { return t.Reader.Read(b) }

func TestGet(t *testing.T) {
	for answer, ok := range map[string]bool{
		"HTTP/1.1 200 OK\r\n\r\n": true, "HTTP/1.0 204 No Content\r\n": true, "HTTP/1.1 302 Found\r\n": true,
		"HTTP/1.1 500 Oops\r\n": false, "HTTP/1.1 404\r\n": false, "HTTP/2 200\r\n": false, "HTTP/1.1 20 OK\r\n": false,
		"SSH-2.0-x\r\n": false, "": false, "HTTP/1.1 200 OK": false, strings.Repeat("x", 9000): false,
	} {
		if err := get(&talk{Reader: strings.NewReader(answer)}, "h", "/"); (err == nil) != ok {
			t.Errorf("%.40q: %v", answer, err)
		}
	}
	for _, path := range []string{"", "x", "/a b", "/a\r\nX: y"} {
		if err := get(&talk{Reader: strings.NewReader("HTTP/1.1 200 OK\r\n")}, "h", path); err == nil {
			t.Errorf("path %q was sent", path)
		}
	}
}

func TestOnce(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/ready" {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	}))
	defer server.Close()
	port := server.Listener.Addr().(*net.TCPAddr).Port
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	dead := closed.Addr().(*net.TCPAddr).Port
	if err := closed.Close(); err != nil {
		t.Fatal(err)
	}
	exec := func(_ context.Context, args []string) error {
		if args[0] != "good" {
			return errors.New("exit status 1")
		}
		return nil
	}
	for name, c := range map[string]struct {
		check wire.Check
		ok    bool
	}{
		"http":         {wire.Check{Kind: "http", Port: port, Path: "/ready"}, true},
		"http refused": {wire.Check{Kind: "http", Port: port, Path: "/"}, false},
		"tcp":          {wire.Check{Kind: "tcp", Port: port}, true},
		"tcp closed":   {wire.Check{Kind: "tcp", Port: dead}, false},
		"exec":         {wire.Check{Kind: "exec", Args: []string{"good"}}, true},
		"exec fails":   {wire.Check{Kind: "exec", Args: []string{"bad"}}, false},
		"none":         {wire.Check{Kind: "none"}, true},
		"unknown":      {wire.Check{Kind: "magic"}, false},
	} {
		c.check.TimeoutMs = 5000
		// The first address refuses: the workload may listen on one only.
		p := Prober{Check: c.check, Hosts: []string{"127.0.0.2", "127.0.0.1"}, Exec: exec}
		if err := p.Once(t.Context()); (err == nil) != c.ok {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRun(t *testing.T) {
	results := []error{errors.New("a"), errors.New("b"), nil, nil}
	ctx, cancel := context.WithCancel(t.Context())
	var told []bool
	Run(ctx, wire.Check{Kind: "tcp", DeadlineMs: 1 << 40, Failures: 1}, func(context.Context) error {
		if len(results) == 0 {
			cancel()
			return nil
		}
		err := results[0]
		results = results[1:]
		return err
	}, func(h wire.Health) { told = append(told, h.OK) }, nil)
	if fmt.Sprint(told) != "[false true]" {
		t.Errorf("told %v", told)
	}
}

// TestRunEnds: behind a final word no check is made, and what a check found
// after its end is not told.
func TestRunEnds(t *testing.T) {
	for kind, want := range map[string]int{"none": 1, "tcp": 1} {
		ctx, cancel := context.WithCancel(t.Context())
		calls, final := 0, 0
		Run(ctx, wire.Check{Kind: kind, DeadlineMs: 0, Failures: 1}, func(context.Context) error {
			if calls++; calls > 3 {
				cancel()
			}
			if kind == "none" {
				return nil
			}
			return errors.New("refused")
		}, func(h wire.Health) {
			if h.Final || h.OK {
				final++
			}
		}, nil)
		cancel()
		if calls != want || final != 1 {
			t.Errorf("%s: %d checks, told %d times, want %d", kind, calls, final, want)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	Run(ctx, wire.Check{Kind: "none"}, func(context.Context) error { cancel(); return nil }, func(h wire.Health) { t.Errorf("told %+v", h) }, nil)
}

// The last word is repeated at every tick, also when no more checks are made
// and also while one takes its time.
func TestRunRepeats(t *testing.T) {
	for kind, once := range map[string]func(context.Context) error{
		"none": func(context.Context) error { return nil },
		"tcp": func() func(context.Context) error {
			n := 0
			return func(ctx context.Context) error {
				if n++; n > 1 {
					<-ctx.Done() // it hangs
				}
				return nil
			}
		}(),
	} {
		ctx, cancel := context.WithCancel(t.Context())
		ticks, told := make(chan time.Time), make(chan wire.Health)
		done := make(chan struct{})
		go func() {
			defer close(done)
			Run(ctx, wire.Check{Kind: kind}, once, func(h wire.Health) { told <- h }, ticks)
		}()
		if h := <-told; !h.OK {
			t.Errorf("%s: %+v", kind, h)
		}
		for range 3 {
			ticks <- time.Time{}
			if h := <-told; !h.OK {
				t.Errorf("%s: repeated %+v", kind, h)
			}
		}
		cancel()
		<-done
	}
}

// TestPause: a process is left alone at first, then asked ever less often, and
// as the spec says once it serves.
func TestPause(t *testing.T) {
	const ms = time.Millisecond
	for _, c := range []struct {
		interval int64
		ever     bool
		want     []time.Duration
	}{
		{1000, false, []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1000 * ms, 1000 * ms}},
		{100, false, []time.Duration{100 * ms, 100 * ms}},
		{3_600_000, false, []time.Duration{100 * ms, 200 * ms, 400 * ms}},
		{1000, true, []time.Duration{1000 * ms, 1000 * ms}},
	} {
		j := Judge{Check: wire.Check{IntervalMs: c.interval}, ever: c.ever}
		for n, want := range c.want {
			if got := j.Pause(n); got != want {
				t.Errorf("interval %d, ever %t: pause %d is %s, want %s", c.interval, c.ever, n, got, want)
			}
		}
		if got := j.Pause(1 << 40); got > time.Duration(c.interval)*ms {
			t.Errorf("pause after many checks: %s", got)
		}
	}
}
