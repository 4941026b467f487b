// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// link is a line of a certain speed and length between this machine and a
// server of its own: a TCP proxy, since not every kernel has netem. Each way
// has its own budget of bytes, shared by all connections as on a line, and
// what goes through comes out half a round trip later. Opening a connection
// costs a round trip, as a handshake does. Loss and slow start are not there:
// the line is kinder than a real one, to everybody alike.
type link struct {
	rate  float64       // bytes per second, each way
	delay time.Duration // each way
	to    string
	ln    net.Listener
	down  budget
	up    budget
	bytes atomic.Int64 // that came down
}

const (
	linkRate  = 100e6 / 8
	linkRTT   = 30 * time.Millisecond
	linkPiece = 16 << 10
	linkQueue = 256 // pieces on their way: 4 MiB, more than rate × delay
)

// newLink listens on a port of its own and leads to an address.
func newLink(to string) (*link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &link{rate: linkRate, delay: linkRTT / 2, to: to, ln: ln}
	go l.serve()
	return l, nil
}

func (l *link) addr() string { return l.ln.Addr().String() }

func (l *link) close() error { return l.ln.Close() }

func (l *link) serve() {
	for {
		c, err := l.ln.Accept()
		if err != nil {
			return // closed
		}
		go l.carry(c)
	}
}

// carry connects one client.
func (l *link) carry(client net.Conn) {
	server, err := net.Dial("tcp", l.to)
	if err != nil {
		client.Close() // who asked sees the end
		return
	}
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		<-ctx.Done()
		client.Close()
		server.Close()
	}()
	var both sync.WaitGroup
	opened := time.Now().Add(2 * l.delay)
	both.Go(func() {
		l.pipe(server, client, &l.up, opened, nil)
		server.(*net.TCPConn).CloseWrite() // what comes back is still wanted
	})
	both.Go(func() {
		defer stop()
		l.pipe(client, server, &l.down, opened, &l.bytes)
	})
	both.Wait()
}

type parcel struct {
	b   []byte
	due time.Time
}

// pipe carries one way. Nothing leaves before begin.
func (l *link) pipe(to io.Writer, from io.Reader, b *budget, begin time.Time, count *atomic.Int64) {
	queue := make(chan parcel, linkQueue)
	go func() {
		defer close(queue)
		for {
			p := make([]byte, linkPiece)
			n, err := from.Read(p)
			if n > 0 {
				due := b.take(n, l.rate).Add(l.delay)
				if due.Before(begin.Add(l.delay)) {
					due = begin.Add(l.delay)
				}
				queue <- parcel{p[:n], due}
			}
			if err != nil {
				return
			}
		}
	}()
	broken := false
	for p := range queue {
		time.Sleep(time.Until(p.due))
		if broken {
			continue // only so that the reader ends
		}
		if _, err := to.Write(p.b); err != nil && !errors.Is(err, net.ErrClosed) {
			broken = true
		}
		if count != nil {
			count.Add(int64(len(p.b)))
		}
	}
}

// budget says when bytes have left at a certain rate.
type budget struct {
	mu   sync.Mutex
	free time.Time // when the line is free again
}

func (b *budget) take(n int, rate float64) time.Time {
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := time.Now(); b.free.Before(now) {
		b.free = now
	}
	b.free = b.free.Add(time.Duration(float64(n) / rate * float64(time.Second)))
	return b.free
}
