// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/zos-node/zos/zimage/pack"
)

const (
	// manifestFirst is how long the request for a pack stays behind that for the
	// manifest, which is then ahead of the pack on a line that both share.
	manifestFirst = 5 * time.Millisecond
	// aheadWithin ends a pack that was asked for and that nobody takes.
	aheadWithin = 30 * time.Second
)

// PackAhead is a start pack that was asked of a mirror before the manifest had come
// that it is held against. Nothing of it has been looked at. It is sent on (Send) to
// whoever reads packs, as that mirror's answer, or closed.
type PackAhead struct {
	Mirror string

	late, stall time.Duration // as of StartPack
	unused      *time.Timer   // closes it
	stop        context.CancelCauseFunc
	done        chan struct{} // closed when resp and err are there
	resp        *http.Response
	err         error
}

// ManifestAhead is Manifest, and meanwhile asks the first mirror for the start pack
// of the image too: on a long line that is two round trips less until a start has
// its first block. The pack is to be sent on or closed. It is nil with an error.
func (f *Fetcher) ManifestAhead(ctx context.Context, id string) (Manifest, *PackAhead, error) {
	h, err := hexOf(id)
	if err != nil {
		return Manifest{}, nil, err
	}
	s, err := f.session()
	if err != nil {
		return Manifest{}, nil, err
	}
	within, stop := context.WithCancelCause(context.WithoutCancel(ctx))
	a := &PackAhead{Mirror: s.f.Mirrors[0], late: cmp.Or(f.packLate, firstHedge), stall: cmp.Or(f.packStall, packStall), done: make(chan struct{}), stop: stop}
	a.unused = time.AfterFunc(aheadWithin, a.Close)
	go func() {
		defer close(a.done)
		select {
		case <-time.After(manifestFirst):
			a.resp, a.err = s.request(within, a.Mirror, pack.Name(h), 0)
		case <-within.Done():
			a.err = context.Cause(within)
		}
	}()
	m, err := f.Manifest(ctx, id)
	if err != nil {
		a.Close()
		return m, nil, err
	}
	return m, a, nil
}

// Close ends it, also while it is sent. It may be called more than once, and of nil.
func (a *PackAhead) Close() {
	if a == nil {
		return
	}
	a.unused.Stop()
	a.stop(errors.New("it is not wanted"))
	go func() {
		if <-a.done; a.err == nil {
			_ = a.resp.Body.Close() // nothing of it is wanted
		}
	}()
}

// What Send writes is, in front of the pack as it travels, its length in 8 bytes,
// little endian: who reads tells by it an answer that broke off from one that is too
// short. aheadLacking stands for a mirror that has no pack. Nothing at all is said
// where the mirror did not answer, or not how long its answer is.
const aheadLacking = -1

// Send sends it on, and closes it. A mirror that does not begin to answer, or sends
// nothing for a while, ends it early, as one does who takes no more: whoever reads
// asks mirrors himself then.
func (a *PackAhead) Send(w io.Writer) error {
	a.unused.Stop()
	defer a.Close()
	late := time.AfterFunc(a.late, func() { a.stop(fmt.Errorf("no answer within %v", a.late)) })
	<-a.done
	late.Stop()
	size := int64(aheadLacking)
	switch {
	case errors.Is(a.err, ErrMissing):
	case a.err != nil:
		return a.err
	case a.resp.ContentLength < 0 || a.resp.ContentLength > pack.MaxWire:
		return fmt.Errorf("%s: a pack of %d bytes", a.Mirror, a.resp.ContentLength)
	default:
		size = a.resp.ContentLength
	}
	if _, err := w.Write(binary.LittleEndian.AppendUint64(nil, uint64(size))); err != nil || size == aheadLacking {
		return err
	}
	b := make([]byte, 64<<10)
	for {
		stall := time.AfterFunc(a.stall, func() { a.stop(fmt.Errorf("nothing came for %v", a.stall)) })
		n, err := a.resp.Body.Read(b)
		stall.Stop()
		if n > 0 {
			if _, err := w.Write(b[:n]); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
	}
}

// Sent is the other end of a PackAhead.
type Sent struct {
	Mirror string
	From   io.Reader
}

// open reads what is in front of the pack; lacks says that the mirror has none, nil
// that it is as if it had not been asked.
func (a Sent) open() (body io.Reader, lacks bool) {
	var head [8]byte
	if a.From == nil {
		return nil, false
	}
	if _, err := io.ReadFull(a.From, head[:]); err != nil {
		return nil, false
	}
	size := int64(binary.LittleEndian.Uint64(head[:]))
	if size < 0 || size > pack.MaxWire {
		return nil, size == aheadLacking
	}
	return &exactly{a.From, size}, false
}

// exactly is so many bytes; fewer are an answer that broke off.
type exactly struct {
	r    io.Reader
	left int64
}

func (e *exactly) Read(b []byte) (int, error) {
	if e.left == 0 {
		return 0, io.EOF
	}
	n, err := e.r.Read(b[:min(int64(len(b)), e.left)])
	e.left -= int64(n)
	if errors.Is(err, io.EOF) && e.left > 0 {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}
