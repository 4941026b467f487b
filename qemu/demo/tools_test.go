// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// script makes a program of a shell script.
func script(t *testing.T, body string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "zos")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+body), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestWarningsAreSeen: what a command that succeeds warns of is shown, once,
// and the summary says it again.
func TestWarningsAreSeen(t *testing.T) {
	var out bytes.Buffer
	c := &chain{steps: steps{out: &out}}
	zos := script(t, `echo 'time=2026-01-01T00:00:00Z level=INFO msg=downloading' >&2
printf 'time=2026-01-01T00:00:00Z level=WARN msg="THE LOCK NO LONGER HOLDS: \033[2Jx"\n' >&2
echo result`)
	for range 2 {
		if got, err := c.command(t.Context(), zos); err != nil || got != "result\n" {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if want := "        WARN msg=\"THE LOCK NO LONGER HOLDS: x\"\n"; out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
	out.Reset()
	c.warnings = append(c.warnings, `WARN msg="A LOCK OF THE WEB IMAGE NO LONGER HOLDS: y"`)
	if !lockGone.MatchString(c.warnings[1]) {
		t.Error("the lock of the example is not known as one")
	}
	c.summary()
	if s := out.String(); !strings.Contains(s, "THE LOCK NO LONGER HOLDS") || !strings.Contains(s, "A LOCK DID NOT HOLD") {
		t.Error(s)
	}
}

// TestTakenPort: a server whose port somebody took meanwhile is started on
// another one, and its own word for it counts; other failures are told in
// words.
func TestTakenPort(t *testing.T) {
	c := &chain{run1: t.TempDir(), zos: script(t, `case "$*" in
*"--listen 127.0.0.1:0") echo "ledger ready on http://127.0.0.1:4711"; exec sleep 1000;;
*busy*) echo "zos: listen: bind: address already in use" >&2; exit 1;;
esac
echo "zos: no such folder" >&2; exit 4`)}
	s, url, err := c.startOn(t.Context(), 8470, "ledger", "busy")
	if err != nil || url != "http://127.0.0.1:4711" {
		t.Fatalf("%q, %v", url, err)
	}
	s.stop()
	_, _, err = c.startOn(t.Context(), 8470, "ledger", "absent")
	var p *problem
	if !errors.As(err, &p) || strings.ContainsAny(p.expected, `\(+`) || !strings.Contains(err.Error(), "no such folder") {
		t.Errorf("%v, %+v", err, p)
	}
}

// TestTheReasonIsTheServersEnd: when a server has died, whatever failed for it
// is told as that.
func TestTheReasonIsTheServersEnd(t *testing.T) {
	log := filepath.Join(t.TempDir(), "ledger.log")
	if err := os.WriteFile(log, []byte("its last words\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	failed := errors.New("connection refused")
	done := make(chan struct{})
	c := &chain{ledger: &server{name: "zos ledger serve", log: log, done: done}, node: &server{}}
	if err := c.because(t.Context(), failed); err != failed {
		t.Errorf("it runs, but: %v", err)
	}
	close(done)
	var out bytes.Buffer
	explain(&out, c.because(t.Context(), failed))
	for _, want := range []string{"zos ledger serve has ended meanwhile", "its last words", "connection refused", "do        read " + log} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
	if c.node.goodbye != orphanGoodbye {
		t.Error("the node is waited for as if there were a ledger")
	}
}

// TestEveryFailureHasAdvice: what no step foresaw is told with what was
// expected and what to do, too.
func TestEveryFailureHasAdvice(t *testing.T) {
	for want, err := range map[string]error{
		"made read-only":        &os.PathError{Op: "unlinkat", Path: "build/run/x", Err: syscall.EPERM},
		"make room":             fmt.Errorf("write: %w", syscall.ENOSPC),
		"run it again from the": os.ErrNotExist,
		"report it":             errors.New("something else"),
	} {
		var out bytes.Buffer
		explain(&out, fmt.Errorf("step 1: %w", err))
		if s := out.String(); !strings.Contains(s, want) || !strings.Contains(s, "expected  ") {
			t.Errorf("%v:\n%s", err, s)
		}
	}
}
