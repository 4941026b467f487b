// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// packStall is how long a mirror may send nothing of a start pack. Another is
// not asked beside it, as for chunks: a second answer would take the line from
// the first.
const packStall = 10 * time.Second

// StartPack brings the start pack of an image whose id is id (package pack), and
// hands its blocks on as they come, proven. Mirrors are asked in turn, each once:
// a start has another way. One that sends something wrong is reported, one that
// has no pack is not: most images have none, and an ErrMissing says that it is so
// on all mirrors. to.Index is called for each mirror that begins to send, and what
// the one before has sent stays good; an error of to's ends it.
func (f *Fetcher) StartPack(ctx context.Context, m Manifest, id string, to pack.Reading) error {
	what := "start pack of " + id
	h, err := hexOf(id)
	if err != nil {
		return err
	}
	img, err := m.packImage()
	if err != nil {
		return err
	}
	s, err := f.session()
	if err != nil {
		return err
	}
	why := fmt.Errorf("%s: %w", what, ErrMissing)
	for _, mirror := range s.order() {
		err := s.startPack(ctx, mirror, pack.Name(h), img, to)
		switch local := (localError{}); {
		case err == nil:
			return nil
		case errors.As(err, &local):
			return local.error
		case ctx.Err() != nil:
			return ended(ctx, what, err)
		case errors.Is(err, ErrMissing):
			continue
		}
		s.judge(mirror, what, err)
		why = fmt.Errorf("%s: %s: %w", what, mirror, err)
	}
	return why
}

// packImage is what a start pack is held against.
func (m Manifest) packImage() (pack.Image, error) {
	root, err := m.root()
	return pack.Image{DataSize: m.DataSize, Root: root}, err
}

// startPack reads a pack from one mirror.
func (s *session) startPack(ctx context.Context, mirror, name string, img pack.Image, to pack.Reading) (err error) {
	patience := cmp.Or(s.f.packStall, packStall)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(patience, func() { cancel(fmt.Errorf("nothing came for %v", patience)) })
	defer stall.Stop()
	resp, err := s.request(ctx, mirror, name, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.ContentLength > pack.MaxWire {
		return fmt.Errorf("%w: announces %d bytes, at most %d can be right", ErrMismatch, resp.ContentLength, int64(pack.MaxWire))
	}
	body := &packBody{r: io.LimitReader(resp.Body, pack.MaxWire), read: func(n int) {
		stall.Reset(patience)
		s.mu.Lock()
		s.bytes += int64(n)
		s.mu.Unlock()
	}}
	ours := func(err error) error {
		if err != nil {
			err = localError{err}
		}
		return err
	}
	err = pack.Read(body, img, pack.Reading{
		Index: func(l extent.List) error { return ours(to.Index(l)) },
		Block: func(k int64, b []byte) error { return ours(to.Block(k, b)) },
	})
	switch local := (localError{}); {
	case err == nil || errors.As(err, &local):
	case body.err != nil:
		err = fmt.Errorf("start pack broke off after %d bytes: %w", body.n, errors.Join(body.err, context.Cause(ctx)))
	default:
		err = fmt.Errorf("%w: %w", ErrMismatch, err)
	}
	return err
}

// packBody is an answer's body, which tells a broken line from a wrong content.
type packBody struct {
	r    io.Reader
	read func(n int)
	n    int64
	err  error
}

func (w *packBody) Read(b []byte) (int, error) {
	n, err := w.r.Read(b)
	w.n += int64(n)
	if n > 0 {
		w.read(n)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		w.err = err
	}
	return n, err
}
