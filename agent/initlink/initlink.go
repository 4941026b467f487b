// SPDX-License-Identifier: Apache-2.0

// Package initlink is the agent's end of its line to the node's PID 1: a
// SOCK_SEQPACKET socket on fd 3, one word per packet. The agent says "alive",
// "poweroff", "reboot", "blessed" (the image's trial is over), and "status "
// with what the consoles show; init says "shutdown".
//
// Without the socket (a test, a run by hand) the line is simply quiet.
package initlink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The words on the line.
const (
	Alive    = "alive"
	PowerOff = "poweroff"
	Reboot   = "reboot"
	Shutdown = "shutdown"
	Blessed  = "blessed"
	// Following says that the ledger was reached: what was put off may begin.
	Following = "following"
	// Status starts a packet with what the consoles show, as JSON.
	Status = "status "
)

// Every is the distance of heartbeats.
const Every = 5 * time.Second

// Link is the line; a nil file means that there is nobody at the other end.
type Link struct {
	f   *os.File
	log *slog.Logger
}

// Open takes over fd when it is a SEQPACKET socket and makes it close-on-exec,
// so that no VM inherits it.
func Open(fd int, log *slog.Logger) (*Link, error) {
	l := &Link{log: log}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if errors.Is(err, unix.EBADF) || errors.Is(err, unix.ENOTSOCK) || (err == nil && typ != unix.SOCK_SEQPACKET) {
		log.Info("no init on this fd, no heartbeat", "fd", fd)
		return l, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look at fd %d: %w", fd, err)
	}
	unix.CloseOnExec(fd)
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, fmt.Errorf("fd %d non-blocking: %w", fd, err)
	}
	l.f = os.NewFile(uintptr(fd), "init")
	return l, nil
}

// Send says one word to init.
func (l *Link) Send(word string) error {
	if l.f == nil {
		return nil
	}
	if _, err := l.f.Write([]byte(word)); err != nil {
		return fmt.Errorf("say %s to init: %w", word, err)
	}
	return nil
}

// Words delivers what init says until ctx is over or the line breaks.
func (l *Link) Words(ctx context.Context) <-chan string {
	ch := make(chan string)
	if l.f == nil {
		return ch
	}
	stop := context.AfterFunc(ctx, func() {
		// Wakes the read below; the line stays usable for sending.
		if err := l.f.SetReadDeadline(time.Unix(1, 0)); err != nil {
			l.log.Warn("wake the line to init", "err", err)
		}
	})
	go func() {
		defer stop()
		b := make([]byte, 64)
		for {
			n, err := l.f.Read(b)
			if err != nil {
				if ctx.Err() == nil {
					l.log.Error("line to init is broken", "err", err)
				}
				return
			}
			select {
			case ch <- string(b[:n]):
			case <-ctx.Done():
				return
			}
		}
	}()
	return ch
}

// Beat sends a heartbeat whenever healthy says that all loops have moved
// since the last one. When they have not, it stays silent and says so: init
// will then restart the agent.
func (l *Link) Beat(ctx context.Context, every time.Duration, healthy func() error) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		if err := healthy(); err != nil {
			l.log.Error("no heartbeat", "err", err)
		} else if err := l.Send(Alive); err != nil {
			l.log.Error("heartbeat", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Present says whether init is at the other end.
func (l *Link) Present() bool { return l.f != nil }
