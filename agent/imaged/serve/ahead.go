// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage/extent"
)

// readAhead has the kernel read of the shown disk what a start comes to next,
// before it does. Each read that has to come here costs whoever reads two changes
// of process, which for the thousands of blocks of a start adds up to more than
// bringing them. The kernel would read ahead by itself only what lies behind, of
// which most is not here, and would be waited for; the start pack's order says
// better.
//
// The kernel is asked for that like any reader would, over a descriptor of the
// shown disk, and not given the blocks (FUSE_NOTIFY_STORE): to give them would wait
// for the lock of a page that a read may hold while it waits for a mirror, and a
// process that waits so cannot be killed.
type readAhead struct {
	next chan extent.List

	mu    sync.Mutex
	shown *os.File // nil: it has not come, or is no longer needed
	over  bool
}

// queued is how many lists may wait; one that finds no place is read when it is
// wanted.
const queued = 16

// newReadAhead takes up the socket.
func newReadAhead() (*readAhead, error) {
	f := os.NewFile(AheadFD, "ahead")
	conn, err := net.FileConn(f)
	if err = errors.Join(err, f.Close()); err != nil { // it has its own
		return nil, fmt.Errorf("socket of the shown disk: %w", err)
	}
	unixConn, ok := conn.(*net.UnixConn)
	if !ok {
		return nil, errors.Join(errors.New("socket of the shown disk: it is none of this machine"), conn.Close())
	}
	r := &readAhead{next: make(chan extent.List, queued)}
	go r.take(unixConn)
	return r, nil
}

// take waits for the descriptor, and then reads. Without one nothing is read
// ahead: it is a help and no more.
func (r *readAhead) take(conn *net.UnixConn) {
	shown, err := receive(conn)
	_ = conn.Close() // nothing was written
	if err != nil {
		fmt.Fprintln(os.Stderr, "imaged: nothing is read ahead:", err)
		return
	}
	r.mu.Lock()
	r.shown = shown
	if r.over {
		r.close()
	}
	r.mu.Unlock()
	for l := range r.next {
		r.read(l)
	}
}

// receive gets one descriptor.
func receive(conn *net.UnixConn) (*os.File, error) {
	oob := make([]byte, unix.CmsgSpace(4))
	_, n, _, _, err := conn.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return nil, err
	}
	messages, err := unix.ParseSocketControlMessage(oob[:n])
	if err != nil || len(messages) != 1 {
		return nil, errors.Join(fmt.Errorf("%d control messages, want 1", len(messages)), err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, errors.Join(fmt.Errorf("%d descriptors, want 1", len(fds)), err)
	}
	return os.NewFile(uintptr(fds[0]), "shown"), nil
}

// want never waits.
func (r *readAhead) want(l extent.List) {
	select {
	case r.next <- l:
	default:
	}
}

// read has the kernel ask for blocks, and does not wait for them.
func (r *readAhead) read(l extent.List) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range l {
		if r.shown == nil {
			return
		}
		if err := unix.Fadvise(int(r.shown.Fd()), e.First*extent.BlockSize, e.Blocks*extent.BlockSize, unix.FADV_WILLNEED); err != nil {
			fmt.Fprintln(os.Stderr, "imaged: no more is read ahead:", err)
			r.close()
		}
	}
}

// end gives the descriptor back: as long as one is open, the file system is not
// gone.
func (r *readAhead) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
	r.close()
}

// close needs r.mu.
func (r *readAhead) close() {
	if r.shown != nil {
		_ = r.shown.Close() // it was read only
		r.shown = nil
	}
}
