// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"time"
)

// stallTimeout ends a download that has stopped moving. A whole blob has no
// time limit: a slow line is no error.
const stallTimeout = 30 * time.Second

// Blob brings a kernel or initramfs to a file and gives the number of bytes
// that mirrors sent. The file appears under its name only when its hash is
// right; until then it is path+".part", and a broken download goes on at its
// end, also from another mirror.
func (f *Fetcher) Blob(ctx context.Context, digest, path string) (int64, error) {
	return f.BlobWithin(ctx, digest, path, func(int64) error { return nil })
}

// BlobWithin is Blob for a place that may be too small. Nobody signed how large
// a blob is: what a mirror announces, or what comes of it without that, is asked
// of room before it is written. An error of room, which should be an ErrNoRoom,
// ends the download from this mirror; another one may announce less.
func (f *Fetcher) BlobWithin(ctx context.Context, digest, path string, room func(bytes int64) error) (int64, error) {
	h, err := hexOf(digest)
	if err != nil {
		return 0, err
	}
	s, err := f.session()
	if err != nil {
		return 0, err
	}
	switch got, err := hashFile(path, io.Discard); {
	case err == nil && got == digest:
		return 0, nil
	case err == nil:
		if err := os.Remove(path); err != nil {
			return 0, fmt.Errorf("remove wrong blob: %w", err)
		}
	case !isMissing(err):
		return 0, err
	}
	part := path + ".part"
	err = s.each(ctx, "blob "+digest, func(ctx context.Context, mirror string) error {
		resumed, err := s.blob(ctx, mirror, h, part, room)
		if errors.Is(err, ErrMismatch) && resumed {
			// The beginning came from elsewhere: this mirror gets the chance
			// to be right from the first byte.
			s.log.Info("resumed blob is wrong, starting anew", "part", "zimage", "mirror", mirror, "what", digest)
			_, err = s.blob(ctx, mirror, h, part, room)
		}
		return err
	})
	if err != nil {
		return s.received(), err
	}
	if err := errors.Join(os.Chmod(part, 0o444), os.Rename(part, path)); err != nil {
		return s.received(), fmt.Errorf("finish blob: %w", err)
	}
	return s.received(), nil
}

// blob goes on with a part from one mirror. When the whole is wrong, the part
// is gone.
func (s *session) blob(ctx context.Context, mirror, want, name string, room func(int64) error) (resumed bool, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return false, localError{fmt.Errorf("blob file: %w", err)}
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	at, err := io.Copy(h, f)
	if err != nil {
		return false, localError{fmt.Errorf("read blob file: %w", err)}
	}
	if at > 0 && hex.EncodeToString(h.Sum(nil)) == want {
		return false, nil // it broke off behind its last byte
	}
	discard := func(err error) (bool, error) { return at > 0, errors.Join(err, f.Truncate(0)) }

	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stall := time.AfterFunc(stallTimeout, func() { cancel(fmt.Errorf("nothing came for %v", stallTimeout)) })
	defer stall.Stop()
	resp, err := s.request(ctx, mirror, "blobs/"+want, at)
	if status := (*statusError)(nil); errors.As(err, &status) && status.code == http.StatusRequestedRangeNotSatisfiable {
		return discard(fmt.Errorf("%w: it has no bytes behind %d", ErrMismatch, at))
	}
	if err != nil {
		return at > 0, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if at > 0 && resp.StatusCode != http.StatusPartialContent { // it does not know Range
		h.Reset()
		at = 0
		if _, err := f.Seek(0, io.SeekStart); err != nil {
			return false, localError{fmt.Errorf("blob file: %w", err)}
		}
		if err := f.Truncate(0); err != nil {
			return false, localError{fmt.Errorf("blob file: %w", err)}
		}
	}
	if resp.ContentLength > MaxBlob-at {
		return discard(fmt.Errorf("%w: announces %d bytes, at most %d are allowed", ErrMismatch, resp.ContentLength, MaxBlob))
	}
	space := gate{w: diskWriter{f}, room: room}
	if resp.ContentLength > 0 {
		if err := space.ask(resp.ContentLength); err != nil {
			return at > 0, fmt.Errorf("it announces %d bytes: %w", at+resp.ContentLength, err)
		}
	}
	body := &meter{r: io.LimitReader(resp.Body, MaxBlob-at+1), h: h, ctx: ctx, read: func(n int) {
		stall.Reset(stallTimeout)
		s.mu.Lock()
		s.bytes += int64(n)
		s.mu.Unlock()
	}}
	if _, err := io.Copy(&space, body); err != nil {
		if errors.Is(err, ErrNoRoom) {
			return discard(err)
		}
		return at > 0, fmt.Errorf("blob broke off after %d bytes: %w", at+body.n, errors.Join(err, context.Cause(ctx)))
	}
	if at+body.n > MaxBlob {
		return discard(fmt.Errorf("%w: sends more than %d bytes", ErrMismatch, MaxBlob))
	}
	if got := hex.EncodeToString(h.Sum(nil)); got != want {
		return discard(fmt.Errorf("%w: hashes to %s", ErrMismatch, got))
	}
	return at > 0, nil
}

// gate asks for room before it lets bytes through.
type gate struct {
	w    io.Writer
	room func(int64) error
	left int64 // of what was granted
}

// gateStep is what is asked for at once when nobody said how much will come.
const gateStep = 4 << 20

func (g *gate) ask(n int64) error {
	if err := g.room(n); err != nil {
		return err
	}
	g.left += n
	return nil
}

func (g *gate) Write(b []byte) (int, error) {
	if n := int64(len(b)); n > g.left {
		if err := g.ask(max(n, gateStep)); err != nil {
			return 0, err
		}
	}
	g.left -= int64(len(b))
	return g.w.Write(b)
}

// diskWriter marks a failing disk as such.
type diskWriter struct{ w io.Writer }

func (d diskWriter) Write(b []byte) (int, error) {
	n, err := d.w.Write(b)
	if err != nil {
		return n, localError{fmt.Errorf("write blob file: %w", err)}
	}
	return n, nil
}
