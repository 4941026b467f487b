// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"sync"

	"github.com/mdlayher/vsock"
)

// demux shares one listener of the host per port among the VMs, by the
// context id of who connects. The id is the kernel's word: a guest cannot
// choose another's.
type demux struct {
	log   *slog.Logger
	open  func(port uint32) (net.Listener, error)
	cid   func(net.Conn) (uint32, error)
	mu    sync.Mutex
	ports map[uint32]*port
}

type port struct {
	listener net.Listener
	guests   map[uint32]*guestListener
}

// backlog is how many connections of one guest wait to be accepted; more are
// closed, so that one guest holds up nobody else.
const backlog = 4

func newDemux(log *slog.Logger) *demux {
	return &demux{log: log, ports: map[uint32]*port{},
		open: func(p uint32) (net.Listener, error) { return vsock.ListenContextID(vsock.Host, p, nil) },
		cid: func(c net.Conn) (uint32, error) {
			a, ok := c.RemoteAddr().(*vsock.Addr)
			if !ok {
				return 0, fmt.Errorf("address %v is none of vsock", c.RemoteAddr())
			}
			return a.ContextID, nil
		}}
}

func (d *demux) listen(cid, number uint32) (net.Listener, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	p := d.ports[number]
	if p == nil {
		l, err := d.open(number)
		if err != nil {
			return nil, fmt.Errorf("vsock port %d: %w", number, err)
		}
		p = &port{listener: l, guests: map[uint32]*guestListener{}}
		d.ports[number] = p
		go d.accept(number, p)
	}
	if p.guests[cid] != nil {
		return nil, fmt.Errorf("vsock port %d: cid %d is listened for already", number, cid)
	}
	g := &guestListener{demux: d, port: number, cid: cid, addr: &vsock.Addr{ContextID: vsock.Host, Port: number},
		conns: make(chan net.Conn, backlog), closed: make(chan struct{})}
	p.guests[cid] = g
	return g, nil
}

// accept ends when the listener is closed, with the last guest's listener.
func (d *demux) accept(number uint32, p *port) {
	for {
		conn, err := p.listener.Accept()
		if err != nil {
			d.mu.Lock()
			current := d.ports[number] == p
			d.mu.Unlock()
			if !current {
				return
			}
			var temporary net.Error
			if errors.As(err, &temporary) && temporary.Timeout() {
				continue
			}
			d.fail(number, p, err)
			return
		}
		if err := d.hand(conn, p); err != nil {
			d.log.Warn("vsock connection refused", "port", number, "err", errors.Join(err, conn.Close()))
		}
	}
}

// hand gives a connection to the VM's listener that it came from.
func (d *demux) hand(conn net.Conn, p *port) error {
	cid, err := d.cid(conn)
	if err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	g := p.guests[cid]
	if g == nil {
		return fmt.Errorf("no VM has cid %d", cid)
	}
	select {
	case g.conns <- conn:
		return nil
	default:
		return fmt.Errorf("cid %d opens connections faster than they are taken", cid)
	}
}

// fail ends all listeners of a port whose shared one broke.
func (d *demux) fail(number uint32, p *port, err error) {
	d.log.Error("vsock listener", "port", number, "err", err)
	d.mu.Lock()
	guests := maps.Clone(p.guests)
	d.mu.Unlock()
	for _, g := range guests {
		if err := g.Close(); err != nil {
			d.log.Warn("vsock listener", "port", number, "err", err)
		}
	}
}

// guestListener is the net.Listener of one VM.
type guestListener struct {
	demux     *demux
	port, cid uint32
	addr      net.Addr
	conns     chan net.Conn
	once      sync.Once
	closed    chan struct{}
}

// Accept implements net.Listener.
func (g *guestListener) Accept() (net.Conn, error) {
	select {
	case c := <-g.conns:
		return c, nil
	case <-g.closed:
		return nil, net.ErrClosed
	}
}

// Addr implements net.Listener.
func (g *guestListener) Addr() net.Addr { return g.addr }

// Close implements net.Listener. Connections that nobody took are closed; the
// shared listener goes with the last guest's.
func (g *guestListener) Close() (err error) {
	g.once.Do(func() {
		close(g.closed)
		d := g.demux
		d.mu.Lock()
		defer d.mu.Unlock()
		p := d.ports[g.port]
		delete(p.guests, g.cid)
		if len(p.guests) == 0 {
			delete(d.ports, g.port)
			err = p.listener.Close()
		}
		for {
			select {
			case c := <-g.conns:
				err = errors.Join(err, c.Close())
			default:
				return
			}
		}
	})
	return err
}
