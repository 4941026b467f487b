// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
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
