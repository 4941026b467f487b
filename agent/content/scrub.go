// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/zos-node/zos/zimage"
)

const (
	// scrubEvery is the pause between two passes.
	scrubEvery = time.Hour
	// manifestLimit bounds the fetching of a manifest that is gone or wrong; a
	// mismatch of a mirror's is no word about the disk.
	manifestLimit = time.Minute
	// scrubRate, in bytes per second, leaves the node to its guests.
	scrubRate = 16 << 20
)

// Scrub hashes everything again, pass after pass, until ctx ends. A guest's
// kernel finds a wrong block when it reads it; this finds also what nobody
// reads, such as a kernel that is in memory already.
func (s *Store) Scrub(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-s.Clock.After(scrubEvery):
		}
		if err := s.ScrubOnce(ctx); err != nil && ctx.Err() == nil {
			s.Log.Error("scrub", "err", err)
		}
	}
}

// ScrubOnce is one pass. A file that cannot be read or recorded does not keep
// the others from being hashed; the next pass tries it again.
func (s *Store) ScrubOnce(ctx context.Context) error {
	items, err := s.items()
	if err != nil {
		return err
	}
	p := &pace{store: s, ctx: ctx}
	began := s.Clock.Now()
	var errs []error
	for _, i := range items {
		if i.Quarantine {
			continue
		}
		if err := s.scrub(ctx, i.Path, p.wait); err != nil {
			errs = append(errs, err)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	s.counts.scrubbed = s.Clock.Now()
	s.mu.Unlock()
	s.Log.Info("everything was hashed again", "MiB", ceil(p.bytes), "took", s.Clock.Now().Sub(began).Round(time.Millisecond), "errors", len(errs))
	s.say()
	return errors.Join(errs...)
}

// scrub hashes one file, without keeping others from it meanwhile. pace, which may
// be nil, is called ahead of each read.
func (s *Store) scrub(ctx context.Context, path string, pace func(n int) error) (err error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // not finished yet, or evicted
	}
	if err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	w, err := want(path, func(id string) (zimage.Manifest, error) {
		ctx, cancel := context.WithTimeout(ctx, manifestLimit)
		defer cancel()
		return s.Manifest(ctx, id)
	})
	if err != nil {
		return fmt.Errorf("scrub %s: %w", path, err)
	}
	w.Before = pace
	err = s.Check(f, w)
	if !errors.Is(err, zimage.ErrMismatch) {
		return err
	}
	release, terr := s.take(ctx, path)
	if terr != nil {
		return errors.Join(err, terr)
	}
	defer release()
	// Another may have found it too, or evicted it.
	now, serr := os.Stat(path)
	if errors.Is(serr, fs.ErrNotExist) {
		return nil
	}
	was, ferr := f.Stat()
	if err := errors.Join(serr, ferr); err != nil {
		return fmt.Errorf("scrub: %w", err)
	}
	if !os.SameFile(now, was) {
		return nil
	}
	return s.condemn(path, err)
}

// pace holds reads to scrubRate.
type pace struct {
	store *Store
	ctx   context.Context
	bytes int64
	next  time.Time // when what was read so far may have been read
}

func (p *pace) wait(n int) error {
	now := p.store.Clock.Now()
	if p.next.Before(now) {
		p.next = now
	}
	p.bytes += int64(n)
	p.next = p.next.Add(time.Duration(n) * time.Second / scrubRate)
	select {
	case <-p.ctx.Done():
		return p.ctx.Err()
	case <-p.store.Clock.After(p.next.Sub(now)):
		return nil
	}
}
