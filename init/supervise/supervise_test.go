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
		fmt.Printf("born %d\n", time.Now().UnixNano())
		os.Exit(3)
	case "silent":
		time.Sleep(time.Minute)
	case "tells":
		line := os.NewFile(3, "init")
		line.Write([]byte(Status + `{"name":"n"}`))
		time.Sleep(time.Minute)
	case "panics":
		go func() {
			for range 40 {
				fmt.Println("work")
			}
			panic("a reason")
		}()
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

// reaper is one for all tests, as a machine has one: two would take each
// other's children.
var reaper = sync.OnceValue(func() *reap.Reaper {
	r := reap.New(func(reap.Status) {})
	sig := make(chan os.Signal, 8)
	signal.Notify(sig, syscall.SIGCHLD)
	go r.Run(sig, func(err error) { panic(err) })
	return r
})

func child(t *testing.T, behave string) (*Child, *lockedBuffer) {
	t.Helper()
	var out lockedBuffer
	return &Child{Path: "/proc/self/exe", Env: []string{"CHILD=" + behave}, Beats: true, Reaper: reaper(), Console: &out, Log: slog.New(slog.NewTextHandler(&out, nil))}, &out
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
	until(t, out, "starts=3")
	cancel()
	<-done
	// The waits are made, not only said.
	var born []int64
	for _, line := range strings.Split(out.String(), "\n") {
		var ns int64
		if _, err := fmt.Sscanf(line, "born %d", &ns); err == nil {
			born = append(born, ns)
		}
	}
	for i, want := range []time.Duration{time.Second, 2 * time.Second} {
		if len(born) <= i+1 {
			t.Fatalf("%d starts in\n%s", len(born), out.String())
		}
		if gap := time.Duration(born[i+1] - born[i]); gap < want {
			t.Errorf("start %d came %s after the one before, want %s at least", i+2, gap, want)
		}
	}
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

// Starting a child again is no sign of life: only its own words are.
func TestOnlyWordsCount(t *testing.T) {
	c, out := child(t, "silent")
	c.Silence = 100 * time.Millisecond
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)
	until(t, out, "starts=1")
	alive := c.LastAlive()
	until(t, out, "starts=2")
	if now := c.LastAlive(); !now.Equal(alive) {
		t.Errorf("silent, and yet alive at %s after %s", now, alive)
	}
}

func TestStatusIsTold(t *testing.T) {
	c, out := child(t, "tells")
	told := make(chan string, 1)
	c.Told = func(b []byte) { told <- string(b) }
	c.Score = 500
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)
	select {
	case got := <-told:
		if got != `{"name":"n"}` {
			t.Errorf("%q", got)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("nothing is told\n%s", out.String())
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", c.pid)); err != nil || string(b) != "500\n" {
		t.Errorf("rank %q, %v", b, err)
	}
	if err := syscall.Kill(c.pid, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
}

// The reason of a panic stands at its beginning, many lines before the end.
func TestReasonIsKept(t *testing.T) {
	c, out := child(t, "panics")
	ended := make(chan []string, 8)
	c.Ended = func(_ string, last []string) { ended <- last }
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go c.Run(ctx)
	select {
	case last := <-ended:
		if text := strings.Join(last, "\n"); !strings.Contains(text, "panic: a reason") {
			t.Errorf("the reason is lost:\n%s", text)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("it did not end\n%s", out.String())
	}
}
