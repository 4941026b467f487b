// SPDX-License-Identifier: Apache-2.0

package console

import (
	"io"
	"os"
	"strings"
	"testing"
	"time"
)

func TestWriteNeverWaits(t *testing.T) {
	r, w, err := os.Pipe() // nobody reads: after 64 KiB a write would block
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/tty9", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	c := Open(w, "tty9 ttyS0", dir)
	line := []byte(strings.Repeat("x", 1023) + "\n")
	done := make(chan struct{})
	go func() {
		for range 4 * queue {
			if n, err := c.Write(line); n != len(line) || err != nil {
				t.Errorf("%d, %v", n, err)
			}
		}
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(30 * time.Second):
		t.Fatal("a write waited for a console that nobody reads")
	}
	// The reader comes back: it is told that text is missing.
	go func() {
		for range 200 {
			c.Write([]byte("more\n"))
			time.Sleep(10 * time.Millisecond)
		}
		w.Close()
	}()
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(b), "pieces of text dropped") {
		t.Error("dropped text is not told of")
	}
	if got, err := os.ReadFile(dir + "/tty9"); err != nil || !strings.Contains(string(got), "more\r\n") {
		t.Errorf("the second console has %d bytes, %v", len(got), err)
	}
}

func TestScreen(t *testing.T) {
	s := Failure{"CMDLINE", "a very long text " + strings.Repeat("word ", 40), "a\nb", "c"}.Screen()
	for _, want := range []string{"ZOS STOPPED  [CMDLINE]", "what failed:", "expected:\n      a\n      b\n", "what to do:\n      c\n"} {
		if !strings.Contains(s, want) {
			t.Errorf("no %q in\n%s", want, s)
		}
	}
	for _, line := range strings.Split(s, "\n") {
		if len(line) > width {
			t.Errorf("line of %d characters: %s", len(line), line)
		}
	}
}

// What was given to a console is with it when Drain says so: the machine may
// end in that moment.
func TestDrain(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	c := Open(w, "ttyS0", t.TempDir())
	const lines = 200
	line := strings.Repeat("x", 1023) + "\n" // together more than a pipe holds
	for range lines {
		c.Write([]byte(line))
	}
	if c.Drain(50 * time.Millisecond) {
		t.Fatal("drained into a console that nobody reads")
	}
	read := make(chan int)
	go func() {
		n, _ := io.Copy(io.Discard, io.LimitReader(r, lines*int64(len(line)+1)))
		read <- int(n)
	}()
	if !c.Drain(time.Minute) {
		t.Fatal("not drained in a minute")
	}
	if n := c.outs[0].left.Load(); n != 0 {
		t.Errorf("%d writes left", n)
	}
	if n := <-read; n != lines*(len(line)+1) {
		t.Errorf("%d bytes arrived", n)
	}
}
