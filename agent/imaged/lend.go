// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/zimage"
)

// Near is what there is already of an image that is to be served: what other images
// here have of it, and a start pack on its way. Its zero value is nothing.
type Near struct {
	Pack   *zimage.PackAhead // ServeBeside sends it on, or closes it
	Donors *zimage.Donors
	// Examine is called when something of a donor was wrong.
	Examine func(ctx context.Context, d *zimage.Donors)
}

// bits say which chunks are worth asking for; nil is none.
func (n Near) bits(m zimage.Manifest) []byte {
	has := make([]bool, len(m.Chunks))
	for i, c := range m.Chunks {
		has[i] = n.Donors.Has(c)
	}
	if !slices.Contains(has, true) {
		return nil
	}
	return zimage.PackHave(has)
}

// socket makes the two ends of what chunks are lent over.
func socket() (ours net.Conn, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, fmt.Errorf("socket of the image server: %w", err)
	}
	near, theirs := os.NewFile(uintptr(fds[0]), "lent"), os.NewFile(uintptr(fds[1]), "lent")
	ours, err = net.FileConn(near)
	if err = errors.Join(err, near.Close()); err != nil { // it has its own
		return nil, nil, errors.Join(fmt.Errorf("socket of the image server: %w", err), theirs.Close())
	}
	return ours, theirs, nil
}

// lend answers a server, which asks for each chunk once, until it has all or is
// gone. It gets nothing but chunks of its own image, and whatever it does costs
// the agent no more than reading those once.
func (s *Served) lend(conn net.Conn, near Near) {
	done := make(chan struct{})
	go func() {
		select {
		case <-s.process.Done():
		case <-done:
		}
		_ = conn.Close() // nothing that was written can be lost
	}()
	err := s.answer(conn, near)
	close(done)
	chunks, bytes := near.Donors.Given()
	log := s.log.With("chunks", chunks, "bytes", bytes)
	if err != nil && !errors.Is(err, net.ErrClosed) && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		log.Warn("the image server gets no more of other images here", "err", err)
		return
	}
	log.Info("other images here had a part of an image")
}

func (s *Served) answer(conn net.Conn, near Near) error {
	chunks := s.cfg.Manifest.Chunks
	asked := make([]bool, len(chunks))
	for {
		var ask [4]byte
		if _, err := io.ReadFull(conn, ask[:]); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		i := int64(binary.LittleEndian.Uint32(ask[:]))
		if i >= int64(len(chunks)) || asked[i] {
			return fmt.Errorf("it asks for chunk %d, of %d, each once", i, len(chunks))
		}
		asked[i] = true
		b := near.Donors.Chunk(chunks[i])
		if b == nil {
			go s.examine(near)
		}
		answer := []byte{serve.Refused}
		if b != nil {
			answer[0] = serve.Given
		}
		if _, err := (&net.Buffers{answer, b}).WriteTo(conn); err != nil {
			return err
		}
	}
}

const examineTimeout = 10 * time.Minute

// examine has donors looked at of which something was wrong, if there are any.
func (s *Served) examine(near Near) {
	ctx, cancel := context.WithTimeout(context.Background(), examineTimeout)
	defer cancel()
	near.Examine(ctx, near.Donors)
}
