// SPDX-License-Identifier: Apache-2.0

// Package lacptest is a small switch with one aggregate (IEEE 802.1AX, the
// former 802.3ad): the ports of an aggregate speak LACP, and only those that
// are in step with their partner carry frames; one more port is the outside.
//
// It works on whatever reads and writes whole Ethernet frames, so it serves
// links of a namespace (Packet) as well as a virtual machine's sockets.
package lacptest

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	etherSlow = 0x8809
	subtype   = 1 // LACP
	version   = 1
	pduLen    = 110
	infoLen   = 20
	headLen   = 14
	maxFrame  = 1 << 16

	// A partner that asked for the short timeout hears from us each second,
	// and is gone after three.
	fast    = time.Second
	expires = 3 * fast
)

// The bits of a LACPDU's state.
const (
	Activity = 1 << iota
	ShortTimeout
	Aggregation
	Synchronization
	Collecting
	Distributing
	Defaulted
	Expired
)

// Info is what a LACPDU says of one end.
type Info struct {
	SystemPriority uint16
	System         [6]byte
	Key            uint16
	PortPriority   uint16
	Port           uint16
	State          byte
}

// PDU is a LACPDU.
type PDU struct{ Actor, Partner Info }

// Decode reads a LACPDU from an Ethernet frame; ok is false for any other.
func Decode(frame []byte) (p PDU, ok bool) {
	if len(frame) < headLen+pduLen || binary.BigEndian.Uint16(frame[12:]) != etherSlow || frame[headLen] != subtype {
		return p, false
	}
	b := frame[headLen+2:]
	if b[0] != 1 || b[1] != infoLen || b[infoLen] != 2 || b[infoLen+1] != infoLen {
		return p, false
	}
	return PDU{info(b[2:]), info(b[infoLen+2:])}, true
}

func info(b []byte) Info {
	return Info{binary.BigEndian.Uint16(b), [6]byte(b[2:8]), binary.BigEndian.Uint16(b[8:]), binary.BigEndian.Uint16(b[10:]), binary.BigEndian.Uint16(b[12:]), b[14]}
}

// Encode makes the frame of a LACPDU.
func (p PDU) Encode(from [6]byte) []byte {
	b := append([]byte{0x01, 0x80, 0xc2, 0, 0, 2}, from[:]...)
	b = append(b, etherSlow>>8, etherSlow&0xff, subtype, version)
	for tlv, i := range []Info{p.Actor, p.Partner} {
		b = append(b, byte(tlv+1), infoLen)
		b = binary.BigEndian.AppendUint16(b, i.SystemPriority)
		b = append(b, i.System[:]...)
		b = binary.BigEndian.AppendUint16(b, i.Key)
		b = binary.BigEndian.AppendUint16(b, i.PortPriority)
		b = binary.BigEndian.AppendUint16(b, i.Port)
		b = append(b, i.State, 0, 0, 0)
	}
	b = append(b, 3, 16) // collector information: no delay
	b = append(b, make([]byte, headLen+pduLen-len(b))...)
	return b
}

// Switch joins an aggregate and the outside.
type Switch struct {
	mu      sync.Mutex
	system  [6]byte
	outside io.Writer
	ports   []*port
	deaf    bool
	done    chan struct{}
	all     sync.WaitGroup
	closers []io.Closer
}

type port struct {
	io.ReadWriteCloser
	number  uint16
	partner Info
	heard   time.Time
	carried int // frames from the node
}

// New starts a switch; Close ends it.
func New(outside io.ReadWriteCloser, members ...io.ReadWriteCloser) *Switch {
	s := &Switch{system: [6]byte{2, 0, 0, 0, 0x5f, 1}, outside: outside, done: make(chan struct{}), closers: []io.Closer{outside}}
	for i, m := range members {
		s.ports = append(s.ports, &port{ReadWriteCloser: m, number: uint16(i + 1)})
		s.closers = append(s.closers, m)
	}
	for _, p := range s.ports {
		s.all.Go(func() { frames(p, func(f []byte) { s.inward(p, f) }) })
	}
	s.all.Go(func() { frames(outside, s.outward) })
	s.all.Go(s.beat)
	return s
}

// Close ends the switch and closes its ports.
func (s *Switch) Close() error {
	close(s.done)
	var errs []error
	for _, c := range s.closers {
		errs = append(errs, c.Close())
	}
	s.all.Wait()
	return errors.Join(errs...)
}

// Deaf has the switch stop speaking LACP, as one without it.
func (s *Switch) Deaf(deaf bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.deaf = deaf
}

// Carried is how many frames each port took from the node.
func (s *Switch) Carried() []int {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []int
	for _, p := range s.ports {
		out = append(out, p.carried)
	}
	return out
}

func frames(r io.Reader, each func([]byte)) {
	b := make([]byte, maxFrame)
	for {
		n, err := r.Read(b)
		if err != nil {
			if errors.Is(err, unix.ENETDOWN) { // a cable that is out
				continue
			}
			return
		}
		each(slices.Clone(b[:n]))
	}
}

// ready: both ends are in step. s.mu is held.
func (p *port) ready(now time.Time) bool {
	return now.Sub(p.heard) < expires && p.partner.State&Synchronization != 0 && p.partner.State&Aggregation != 0
}

func (s *Switch) inward(p *port, frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	if pdu, ok := Decode(frame); ok {
		p.partner, p.heard = pdu.Actor, now
		s.answer(p, now)
		return
	}
	if p.ready(now) && p.partner.State&Distributing != 0 && !s.deaf {
		p.carried++
		s.write(s.outside, frame)
	}
}

// outward spreads frames over the ports by their addresses: a conversation
// stays on one.
func (s *Switch) outward(frame []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var ready []*port
	for _, p := range s.ports {
		if p.ready(time.Now()) && p.partner.State&Collecting != 0 && !s.deaf {
			ready = append(ready, p)
		}
	}
	if len(ready) > 0 && len(frame) >= headLen {
		s.write(ready[int(frame[5]^frame[11])%len(ready)], frame)
	}
}

func (s *Switch) beat() {
	tick := time.NewTicker(fast)
	defer tick.Stop()
	for {
		select {
		case <-s.done:
			return
		case <-tick.C:
		}
		s.mu.Lock()
		for _, p := range s.ports {
			s.answer(p, time.Now())
		}
		s.mu.Unlock()
	}
}

// answer says how we see a port. s.mu is held.
func (s *Switch) answer(p *port, now time.Time) {
	if s.deaf {
		return
	}
	state := byte(Activity | ShortTimeout | Aggregation)
	partner := p.partner
	switch {
	case now.Sub(p.heard) >= expires:
		state |= Defaulted
		partner = Info{}
	case p.ready(now):
		state |= Synchronization | Collecting | Distributing
	default:
		state |= Synchronization
	}
	pdu := PDU{Actor: Info{0x8000, s.system, 1, 0x8000, p.number, state}, Partner: partner}
	s.write(p, pdu.Encode(s.system))
}

// write loses what a cable that is out cannot carry.
func (s *Switch) write(w io.Writer, frame []byte) { _, _ = w.Write(frame) }

// Packet opens a link of the calling thread's namespace for whole frames.
func Packet(name string) (io.ReadWriteCloser, error) {
	link, err := net.InterfaceByName(name)
	if err != nil {
		return nil, err
	}
	const all = unix.ETH_P_ALL
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("packet socket: %w", err)
	}
	closing := func(err error) (io.ReadWriteCloser, error) {
		return nil, errors.Join(fmt.Errorf("packet socket on %s: %w", name, err), unix.Close(fd))
	}
	proto := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, all))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: link.Index}); err != nil {
		return closing(err)
	}
	// What we send ourselves is not to come back.
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return closing(err)
	}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &unix.PacketMreq{Ifindex: int32(link.Index), Type: unix.PACKET_MR_PROMISC}); err != nil {
		return closing(err)
	}
	// The kernel takes the tag out of what it hands to packet sockets, which
	// this switch would have to put back: frames are untagged here.
	done := make(chan struct{})
	return &socket{fd: fd, done: done}, nil
}

type socket struct {
	fd   int
	once sync.Once
	done chan struct{}
}

func (s *socket) Read(b []byte) (int, error) {
	const poll = 100 // milliseconds
	for {
		select {
		case <-s.done:
			return 0, io.EOF
		default:
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, poll)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return 0, err
		}
		if n > 0 {
			n, _, err := unix.Recvfrom(s.fd, b, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				continue
			}
			return n, err
		}
	}
}

func (s *socket) Write(b []byte) (int, error) { return unix.Write(s.fd, b) }

// Close ends reading; the socket goes with the process, for a reader may still
// be in it.
func (s *socket) Close() error {
	s.once.Do(func() { close(s.done) })
	return nil
}
