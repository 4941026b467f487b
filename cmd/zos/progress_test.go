// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// pseudoTerminal makes one that ends with the test: its master and the end
// that a program takes for a terminal.
func pseudoTerminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("SKIP %s: no pseudo terminals: %v", t.Name(), err)
	}
	if err := unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	number, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		tty.Close() // may be closed already
		if err := master.Close(); err != nil {
			t.Error(err)
		}
	})
	return master, tty
}

// onTerminal runs the tool with a terminal for its standard error, and
// returns what stood on it.
func onTerminal(t *testing.T, want int, args ...string) string {
	t.Helper()
	master, tty := pseudoTerminal(t)
	said := make(chan string, 1)
	go func() {
		b, _ := io.ReadAll(master) // ends with an error when the last tty is closed
		said <- string(b)
	}()
	var out bytes.Buffer
	code := run(t.Context(), args, &out, tty)
	if err := tty.Close(); err != nil {
		t.Fatal(err)
	}
	text := <-said
	if code != want {
		t.Fatalf("zos %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), code, want, out.String(), text)
	}
	return text
}

// TestBarsOnATerminal: long work on a ledger shows how far it is, step by
// step, takes its bar away, and says nothing of it with --json.
func TestBarsOnATerminal(t *testing.T) {
	l := ledgertest.New(t)
	root := file(t, "root.json", l.RootEnv)
	l.Must(l.Register("shop", 1, nil))
	l.Must(l.Register("other", 1, nil))
	read := []string{"--ledger", l.Dir, "--root", root}
	for _, c := range []struct {
		args  string
		steps []string
	}{
		{"ledger verify", []string{"ledger: entries", "ledger: files"}},
		{"audit shop", []string{"audit: entries", "audit: replay", "audit: files"}},
		{"history shop", []string{"ledger: entries"}},
		{"status", []string{"ledger: entries"}},
	} {
		args := append(strings.Fields(c.args), read...)
		said := onTerminal(t, exitOK, args...)
		for _, step := range c.steps {
			if !strings.Contains(said, "%") || !strings.Contains(said, "[") || !strings.Contains(said, step) {
				t.Errorf("zos %s shows no bar of %q: %q", c.args, step, said)
			}
		}
		if !strings.HasSuffix(said, "\r\x1b[K") {
			t.Errorf("zos %s leaves its bar: %q", c.args, said)
		}
		if said := onTerminal(t, exitOK, append(args, "--json")...); said != "" {
			t.Errorf("zos %s --json writes %q", c.args, said)
		}
		if _, said := zos(t, exitOK, args...); said != "" {
			t.Errorf("zos %s without a terminal writes %q", c.args, said)
		}
	}
	// So has what is said on the way.
	master, tty := pseudoTerminal(t)
	a := &app{err: tty}
	a.progress("half", 1, 2)
	a.nodeLog().Info("heard")
	b := make([]byte, 4096)
	n, err := master.Read(b)
	for err == nil && !strings.Contains(string(b[:n]), "heard") {
		var more int
		more, err = master.Read(b[n:])
		n += more
	}
	if err != nil || !strings.Contains(string(b[:n]), "] half\r\x1b[Ktime=") {
		t.Errorf("a line of the log stands behind a bar: %q, %v", b[:n], err)
	}
	// An error has a line of its own.
	if said := onTerminal(t, exitNotFound, append([]string{"history", "absent"}, read...)...); !strings.Contains(said, "\r\x1b[Kzos: ") {
		t.Errorf("the error stands behind a bar: %q", said)
	}
}
