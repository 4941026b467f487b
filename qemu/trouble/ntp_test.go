// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// clockByNTP: a node whose clock is years behind. A time server that names a
// time before the floor is not followed; one that names a time that can be right
// is, which is seen since it is 20 minutes fast.
func clockByNTP(t *testing.T, w *world, name string) {
	const fast = 20 * time.Minute
	wires := newWires(t)
	server := serveTime(t, func() time.Time { return time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC) })
	relay(t, wires.card("a"), wires.outside(), server.port)
	n := w.quickest(t, name, wires.with(qemu.Options{Args: []string{"-rtc", "base=2011-01-01T00:00:00"}}), "--ntp", ledgerproc.Gateway)
	if date := n.file("/sys/class/rtc/rtc0/date"); date[:4] != "2011" {
		t.Errorf("the machine's clock shows %s", date)
	}
	n.says(0, `time servers say 2001-02-03T\S+, but 20[23]\S+ has passed`)
	n.timeIsRight() // by the ledger
	server.now.Store(&truth{func() time.Time { return time.Now().Add(fast) }})
	n.says(0, `msg="clock set" .*source=`+ledgerproc.Gateway+` servers=1`)
	if at := n.time(); time.Until(at.Add(-fast)).Abs() > fast/2 {
		t.Errorf("the node takes now for %s, the time server was %s fast", at, fast)
	}
}

// timeServer answers NTP (RFC 5905) with whatever time it is told.
type timeServer struct {
	port int
	now  atomic.Pointer[truth]
}

type truth struct{ now func() time.Time }

func serveTime(t *testing.T, now func() time.Time) *timeServer {
	t.Helper()
	c, err := net.ListenPacket("udp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &timeServer{port: c.LocalAddr().(*net.UDPAddr).Port}
	s.now.Store(&truth{now})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1500)
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil && n >= 48 {
				_, err = c.WriteTo(s.answer(b[:48]), from)
			}
			if err != nil {
				t.Logf("time server: %v", err)
			}
		}
	}()
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return s
}

func (s *timeServer) answer(ask []byte) []byte {
	now := s.now.Load().now()
	b := make([]byte, 48)
	b[0], b[1], b[2], b[3] = 4<<3|4, 2, 6, 0xec // version 4, server; stratum 2; 64 s; about 1 µs
	binary.BigEndian.PutUint32(b[8:], 1<<6)     // root dispersion: 1 ms
	copy(b[12:], []byte{127, 0, 0, 1})
	copy(b[24:], ask[40:48])
	for at, t := range map[int]time.Time{16: now.Add(-10 * time.Second), 32: now, 40: now} {
		binary.BigEndian.PutUint32(b[at:], uint32(t.Unix()+2208988800)) // since 1900
		binary.BigEndian.PutUint32(b[at+4:], uint32(uint64(t.Nanosecond())<<32/1e9))
	}
	return b
}

// relay joins a card and the outside, and leads what is sent to the NTP port, which
// only root may have here, to another one.
func relay(t *testing.T, card, outside io.ReadWriteCloser, port int) {
	t.Helper()
	done := make(chan struct{}, 2)
	pass := func(from, to io.ReadWriteCloser, at int, old, new uint16) {
		b := make([]byte, 1<<16)
		for {
			n, err := from.Read(b)
			if err != nil {
				done <- struct{}{}
				return
			}
			frame := b[:n]
			// IPv4 without options, UDP; no checksum is one that is right.
			if n >= 42 && frame[12] == 8 && frame[13] == 0 && frame[14] == 0x45 && frame[23] == 17 && binary.BigEndian.Uint16(frame[at:]) == old {
				binary.BigEndian.PutUint16(frame[at:], new)
				frame[40], frame[41] = 0, 0
			}
			if _, err := to.Write(frame); errors.Is(err, net.ErrClosed) {
				done <- struct{}{}
				return
			}
		}
	}
	const ntp, source, destination = 123, 34, 36
	go pass(card, outside, destination, ntp, uint16(port))
	go pass(outside, card, source, uint16(port), ntp)
	t.Cleanup(func() {
		if err := errors.Join(card.Close(), outside.Close()); err != nil {
			t.Error(err)
		}
		<-done
		<-done
	})
}
