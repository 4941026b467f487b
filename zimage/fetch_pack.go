// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"time"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// packStall is how long a mirror may send nothing of a start pack. Another is
// asked beside it only while it has not begun to answer (firstHedge): a second
// answer would take the line from the first.
const packStall = 5 * time.Second

// StartPack brings the start pack of an image whose id is id (package pack), and
// hands its blocks on as they come, proven. Mirrors are asked in turn, the next one
// also while one does not begin to answer, and each answers once: a start has
// another way. One that sends something wrong is reported, one that
// has no pack is not: most images have none, and an ErrMissing says that it is so
// on all mirrors. to.Index is called for each mirror that begins to send, and what
// the one before has sent stays good; an error of to's ends it.
func (f *Fetcher) StartPack(ctx context.Context, m Manifest, id string, to pack.Reading) error {
	return f.StartPackAfter(ctx, m, id, Sent{}, to)
}

// StartPackAfter is StartPack where a mirror was asked already (PackAhead): what it
// sends comes first, and it is not asked again unless it did not answer.
func (f *Fetcher) StartPackAfter(ctx context.Context, m Manifest, id string, sent Sent, to pack.Reading) error {
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
	failed := func(mirror string, err error) {
		if errors.Is(err, ErrMissing) || ctx.Err() != nil {
			return
		}
		s.judge(mirror, what, err)
		why = fmt.Errorf("%s: %s: %w", what, mirror, err)
	}
	left := s.order()
	body, lacks := sent.open()
	if body != nil {
		err := s.readPack(body, func() {}, func() error { return context.Cause(ctx) }, img, to)
		if local := (localError{}); err == nil || errors.As(err, &local) {
			return local.error
		}
		failed(sent.Mirror, err)
	}
	if body != nil || lacks {
		left = slices.DeleteFunc(left, func(mirror string) bool { return mirror == sent.Mirror })
	}
	for len(left) > 0 && ctx.Err() == nil {
		var from *packAnswer
		if from, left = s.packFrom(ctx, what, pack.Name(h), left, failed); from == nil {
			break
		}
		err := s.startPack(from, img, to)
		if local := (localError{}); err == nil || errors.As(err, &local) {
			return local.error
		}
		failed(from.mirror, err)
	}
	if ctx.Err() != nil {
		return ended(ctx, what, why)
	}
	return why
}

// packAnswer is a mirror that was asked for a pack.
type packAnswer struct {
	mirror string
	stop   context.CancelCauseFunc
	stall  *time.Timer // stops it, when nothing came for so long
	resp   *http.Response
	err    error
}

// packFrom gives the first of some mirrors that begins to answer, and those that
// may still be asked if that comes to nothing: also those that had been asked and
// were only slow. failed hears of the others.
func (s *session) packFrom(ctx context.Context, what, name string, mirrors []string, failed func(mirror string, err error)) (from *packAnswer, left []string) {
	patience, late := cmp.Or(s.f.packStall, packStall), cmp.Or(s.f.packLate, firstHedge)
	answers := make(chan *packAnswer, len(mirrors))
	var running []*packAnswer
	ask := func() {
		ctx, stop := context.WithCancelCause(ctx)
		a := &packAnswer{mirror: mirrors[0], stop: stop}
		a.stall = time.AfterFunc(patience, func() { stop(fmt.Errorf("nothing came for %v", patience)) })
		mirrors, running = mirrors[1:], append(running, a)
		go func() {
			if a.resp, a.err = s.request(ctx, a.mirror, name, 0); a.err != nil {
				a.err = errors.Join(a.err, context.Cause(ctx))
			}
			answers <- a
		}()
	}
	for ask(); len(running) > 0; {
		var hedge <-chan time.Time
		if len(mirrors) > 0 {
			hedge = time.After(late)
		}
		select {
		case <-hedge:
			s.slow(running[len(running)-1].mirror, what, late)
			ask()
		case a := <-answers:
			running = slices.DeleteFunc(running, func(b *packAnswer) bool { return a == b })
			if a.err == nil {
				for _, slow := range running {
					slow.end()
					mirrors = append(mirrors, slow.mirror)
				}
				for range running {
					if slow := <-answers; slow.err == nil {
						_ = slow.resp.Body.Close() // nothing of it was wanted
					}
				}
				return a, mirrors
			}
			a.end()
			failed(a.mirror, a.err)
			if len(running) == 0 && len(mirrors) > 0 && ctx.Err() == nil {
				ask()
			}
		}
	}
	return nil, nil
}

// end stops what is under way.
func (a *packAnswer) end() {
	a.stall.Stop()
	a.stop(nil)
}

// packImage is what a start pack is held against.
func (m Manifest) packImage() (pack.Image, error) {
	root, err := m.root()
	return pack.Image{DataSize: m.DataSize, Root: root}, err
}

// startPack reads a pack from a mirror that answers.
func (s *session) startPack(from *packAnswer, img pack.Image, to pack.Reading) (err error) {
	defer from.end()
	resp, patience := from.resp, cmp.Or(s.f.packStall, packStall)
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.ContentLength > pack.MaxWire {
		return fmt.Errorf("%w: announces %d bytes, at most %d can be right", ErrMismatch, resp.ContentLength, int64(pack.MaxWire))
	}
	return s.readPack(resp.Body, func() { from.stall.Reset(patience) }, func() error { return context.Cause(resp.Request.Context()) }, img, to)
}

// readPack reads a pack from an answer. came hears of everything that comes; cause
// says why an answer broke off that we ended.
func (s *session) readPack(from io.Reader, came func(), cause func() error, img pack.Image, to pack.Reading) error {
	body := &packBody{r: io.LimitReader(from, pack.MaxWire), read: func(n int) {
		came()
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
	err := pack.Read(body, img, pack.Reading{
		Index: func(l extent.List) error { return ours(to.Index(l)) },
		Block: func(k int64, b []byte) error { return ours(to.Block(k, b)) },
	})
	switch local := (localError{}); {
	case err == nil || errors.As(err, &local):
	case body.err != nil:
		err = fmt.Errorf("start pack broke off after %d bytes: %w", body.n, errors.Join(body.err, cause()))
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
