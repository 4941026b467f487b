// SPDX-License-Identifier: Apache-2.0

// Package netlink speaks to the kernel's netlink sockets, as much of it as the
// guest needs: a request, its acknowledgement, its answers, attributes, and
// messages of a group. A library would be ten times as much.
package netlink

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Header sizes, from <linux/netlink.h>.
const (
	headerSize = 16
	attrSize   = 4
)

// Message is one answer or notification, without its header.
type Message struct {
	Type uint16
	Body []byte
}

// Conn is a netlink socket.
type Conn struct {
	fd  int
	seq uint32
}

// Open makes a socket of a netlink family, such as unix.NETLINK_ROUTE.
func Open(family int) (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, family)
	if err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, errors.Join(fmt.Errorf("netlink: %w", err), unix.Close(fd))
	}
	return &Conn{fd: fd}, nil
}

// Close closes the socket.
func (c *Conn) Close() error { return unix.Close(c.fd) }

// Join subscribes to a multicast group.
func (c *Conn) Join(group uint32) error {
	if err := unix.SetsockoptInt(c.fd, unix.SOL_NETLINK, unix.NETLINK_ADD_MEMBERSHIP, int(group)); err != nil {
		return fmt.Errorf("netlink group %d: %w", group, err)
	}
	return nil
}

// Do sends a request and returns the answers that come before the
// acknowledgement, which is always asked for.
func (c *Conn) Do(kind, flags uint16, body []byte) ([]Message, error) {
	c.seq++
	if err := unix.Sendto(c.fd, encode(kind, flags|unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.seq, body), 0,
		&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, fmt.Errorf("netlink: %w", err)
	}
	var answers []Message
	for {
		b, err := c.read()
		if err != nil {
			return nil, err
		}
		for len(b) > 0 {
			m, seq, rest, err := decode(b)
			if err != nil {
				return nil, err
			}
			b = rest
			if seq != c.seq {
				continue
			}
			if m.Type == unix.NLMSG_ERROR {
				return answers, ack(m.Body)
			}
			answers = append(answers, m)
		}
	}
}

// Receive waits for messages of the joined groups.
func (c *Conn) Receive() ([]Message, error) {
	b, err := c.read()
	if err != nil {
		return nil, err
	}
	var all []Message
	for len(b) > 0 {
		m, _, rest, err := decode(b)
		if err != nil {
			return nil, err
		}
		all, b = append(all, m), rest
	}
	return all, nil
}

func (c *Conn) read() ([]byte, error) {
	b := make([]byte, 64<<10)
	for {
		n, from, err := unix.Recvfrom(c.fd, b, 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("netlink: %w", err)
		}
		if fromKernel(from) {
			return b[:n], nil
		}
	}
}

// fromKernel: any process may send to the socket; only the kernel is pid 0.
func fromKernel(from unix.Sockaddr) bool {
	a, ok := from.(*unix.SockaddrNetlink)
	return ok && a.Pid == 0
}

func encode(kind, flags uint16, seq uint32, body []byte) []byte {
	n := binary.NativeEndian
	b := make([]byte, headerSize, headerSize+len(body))
	n.PutUint32(b[0:], uint32(headerSize+len(body)))
	n.PutUint16(b[4:], kind)
	n.PutUint16(b[6:], flags)
	n.PutUint32(b[8:], seq)
	return append(b, body...)
}

func decode(b []byte) (m Message, seq uint32, rest []byte, err error) {
	if len(b) < headerSize {
		return Message{}, 0, nil, errors.New("netlink: message is cut")
	}
	n := binary.NativeEndian
	size := int64(n.Uint32(b))
	if size < headerSize || size > int64(len(b)) {
		return Message{}, 0, nil, fmt.Errorf("netlink: message of %d bytes", size)
	}
	return Message{Type: n.Uint16(b[4:]), Body: b[headerSize:size]}, n.Uint32(b[8:]), b[min(align(size), int64(len(b))):], nil
}

// ack is nil or what the kernel refuses with.
func ack(body []byte) error {
	if len(body) < 4 {
		return errors.New("netlink: acknowledgement is cut")
	}
	if code := int32(binary.NativeEndian.Uint32(body)); code != 0 {
		return os.NewSyscallError("netlink", unix.Errno(-code))
	}
	return nil
}

func align(n int64) int64 { return (n + 3) &^ 3 }

// Attr appends an attribute to a message.
func Attr(b []byte, kind uint16, data []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(attrSize+len(data)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, data...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

// Uint32 is an attribute's data.
func Uint32(v uint32) []byte { return binary.NativeEndian.AppendUint32(nil, v) }

// Attribute is one of a message.
type Attribute struct {
	Type uint16
	Data []byte
}

// Attrs reads the attributes of a message or of a nested attribute.
func Attrs(b []byte) ([]Attribute, error) {
	var all []Attribute
	for len(b) > 0 {
		if len(b) < attrSize {
			return nil, errors.New("netlink: attribute is cut")
		}
		size := int64(binary.NativeEndian.Uint16(b))
		if size < attrSize || size > int64(len(b)) {
			return nil, fmt.Errorf("netlink: attribute of %d bytes", size)
		}
		const kindMask = 0x3fff // without the bits "nested" and "byte order"
		all = append(all, Attribute{Type: binary.NativeEndian.Uint16(b[2:]) & kindMask, Data: b[attrSize:size]})
		b = b[min(align(size), int64(len(b))):]
	}
	return all, nil
}
