// SPDX-License-Identifier: Apache-2.0

package supervise

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/init/reap"
)

// The test program is its own child and behaves as CHILD says.
func TestMain(m *testing.M) {
	switch os.Getenv("CHILD") {
	case "":
		os.Exit(m.Run())
	case "crash":
		fmt.Println("about to crash")
		os.Exit(3)
	case "silent":
		time.Sleep(time.Minute)
	case "well":
		line := os.NewFile(3, "init")
		line.Write([]byte(Alive))
		b := make([]byte, 64)
		n, err := line.Read(b)
		for err != nil && strings.Contains(err.Error(), "temporarily") {
			time.Sleep(10 * time.Millisecond)
			n, err = line.Read(b)
		}
		if string(b[:n]) == Shutdown {
			line.Write([]byte(Blessed))
			line.Write([]byte(PowerOff))
			time.Sleep(time.Minute)
		}
	}
	os.Exit(0)
}

func TestNext(t *testing.T) {
	var wait time.Duration
	var got []time.Duration
	for range 8 {
		wait = Next(wait, time.Millisecond)
		got = append(got, wait/time.Second)
	}
	if fmt.Sprint(got) != "[1ns 2ns 4ns 8ns 16ns 32ns 60ns 60ns]" {
		t.Errorf("waits %v", got)
	}
	if Next(wait, Well) != firstWait {
		t.Error("a child that ran well does not begin anew")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func child(t *testing.T, behave string) (*Child, *lockedBuffer) {
	t.Helper()
	r := reap.New(func(reap.Status) {})
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, syscall.SIGCHLD)
	go r.Run(sig, func(err error) { t.Error(err) })
	var out lockedBuffer
	return &Child{Path: "/proc/self/exe", Env: []string{"CHILD=" + behave}, Beats: true, Reaper: r, Console: &out, Log: slog.New(slog.NewTextHandler(&out, nil))}, &out
}

// until waits for the console to hold a text.
func until(t *testing.T, out *lockedBuffer, want string) {
	t.Helper()
	for end := time.Now().Add(30 * time.Second); !strings.Contains(out.String(), want); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("no %q in\n%s", want, out.String())
		}
	}
}

func TestCrashIsShownAndStartedAgain(t *testing.T) {
	c, out := child(t, "crash")
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { c.Run(ctx); close(done) }()
	until(t, out, "starts=2")
	cancel()
	<-done
	for _, want := range []string{`why="exit code 3"`, "wait=1s", "wait=2s", `line="about to crash"`} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %s in\n%s", want, out.String())
		}
	}
}

func TestSilenceEndsTheChild(t *testing.T) {
	c, out := child(t, "silent")
	c.Silence = 200 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)
	until(t, out, `why="no heartbeat for`)
}

func TestLine(t *testing.T) {
	c, out := child(t, "well")
	asked := make(chan string, 2)
	c.Asked = func(w string) { asked <- w }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)
	until(t, out, "program started")
	for c.Say(Shutdown) != nil {
		time.Sleep(5 * time.Millisecond)
	}
	for _, want := range []string{Blessed, PowerOff} {
		select {
		case w := <-asked:
			if w != want {
				t.Errorf("asked for %s, want %s", w, want)
			}
		case <-time.After(30 * time.Second):
			t.Fatalf("no answer\n%s", out.String())
		}
	}
	if n := c.Starts(); n != 1 {
		t.Errorf("%d starts", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}
