// SPDX-License-Identifier: Apache-2.0

package initlink

import (
	"context"
	"log/slog"
	"os"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestLine(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	host := os.NewFile(uintptr(fds[1]), "host")
	defer func() { logClose(t, host) }()
	l, err := Open(fds[0], log)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	words := l.Words(ctx)
	if _, err := host.Write([]byte(Shutdown)); err != nil {
		t.Fatal(err)
	}
	if w := <-words; w != Shutdown {
		t.Fatalf("init said %q", w)
	}
	done := make(chan struct{})
	go func() { defer close(done); l.Beat(ctx, time.Hour, func() error { return nil }) }()
	b := make([]byte, 64)
	if n, err := host.Read(b); err != nil || string(b[:n]) != Alive {
		t.Fatalf("heartbeat %q %v", b[:n], err)
	}
	cancel()
	<-done
	if err := l.Send(PowerOff); err != nil {
		t.Fatal("cannot send after the context ended:", err)
	}
	if n, err := host.Read(b); err != nil || string(b[:n]) != PowerOff {
		t.Fatalf("poweroff %q %v", b[:n], err)
	}
}

func logClose(t *testing.T, f *os.File) {
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}

func TestNoInit(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer logClose(t, r)
	defer logClose(t, w)
	for _, fd := range []int{int(r.Fd()), 9999} {
		l, err := Open(fd, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.Send(Alive); err != nil {
			t.Error(err)
		}
	}
}

func TestHangingLoopSilencesHeartbeat(t *testing.T) {
	now := time.Unix(0, 0)
	p := NewProgress(func() time.Time { return now })
	p.Moved("follow", 10*time.Second)
	p.Moved("uplink", time.Minute)
	now = now.Add(10 * time.Second)
	if err := p.Healthy(); err != nil {
		t.Fatal(err)
	}
	now = now.Add(time.Second)
	if err := p.Healthy(); err == nil {
		t.Fatal("follow hangs, nobody saw it")
	}
	p.Done("follow")
	if err := p.Healthy(); err != nil {
		t.Fatal(err)
	}
}
