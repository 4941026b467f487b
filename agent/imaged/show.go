// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// show sends the server the disk that it shows, open to read, so that it can have
// the kernel read ahead. Opening asks the server, which is up or ends: so it is not
// waited for. A server that does not get it reads nothing ahead.
func (s *Served) show(conn net.Conn) {
	err := sendFile(conn, s.path)
	if err != nil && !s.Died(0) {
		s.log.Warn("the image server reads nothing ahead", "err", err)
	}
	_ = conn.Close() // what was sent has arrived
}

func sendFile(conn net.Conn, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() // the server has its own
	c, ok := conn.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("a socket of %T", conn)
	}
	_, _, err = c.WriteMsgUnix([]byte{0}, unix.UnixRights(int(f.Fd())), nil)
	return err
}

// asked is the mirror of the pack that is on its way.
func (n Near) asked() string {
	if n.Pack == nil {
		return ""
	}
	return n.Pack.Mirror
}

// pipe is what a pack goes to the server over.
func (n Near) pipe() (ours, theirs *os.File, err error) {
	theirs, ours, err = os.Pipe()
	if err != nil {
		return nil, nil, fmt.Errorf("pipe of the image server: %w", err)
	}
	return ours, theirs, nil
}

// send sends a pack on, as it comes and unread. The server takes what it can do with,
// and asks mirrors for the rest.
func (s *Served) send(to *os.File, near Near) {
	if near.Pack != nil {
		if err := near.Pack.Send(to); err != nil && !errors.Is(err, unix.EPIPE) { // it has all that it wants
			s.log.Info("a start pack that was asked for ahead did not come whole", "mirror", near.Pack.Mirror, "err", err)
		}
	}
	_ = to.Close() // a pipe has nothing to lose
}
