// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"time"

	"github.com/zos-node/zos/ledger"
)

// seenTimeout is how long an entry with a receipt may take to show up in the
// verified state before it is submitted again.
const seenTimeout = 20 * time.Second

// Run submits what is queued until ctx is over.
func (q *Queue) Run(ctx context.Context) {
	s := submitter{Queue: q, retry: firstRetry}
	for ctx.Err() == nil {
		q.cfg.Moved()
		changed := q.cfg.Ledger.Changed()
		s.confirm()
		pause := s.step(ctx)
		select {
		case <-ctx.Done():
		case <-q.more:
		case <-changed:
		case <-q.cfg.Clock.After(pause):
		}
	}
}

// submitter is what Run knows beyond the queue.
type submitter struct {
	*Queue
	retry  time.Duration
	notNow time.Time // no submission before this
	since  time.Time // of the present trouble with the ledger
	seenBy time.Time // when the first that has a receipt must have been seen
}

// confirm drops the first files that are seen on the ledger. When one that has
// a receipt is not seen in time, the receipt was a lie or its server lost it:
// all are submitted again.
func (s *submitter) confirm() {
	now := s.cfg.Clock.Now()
	for {
		name, raw, ok := s.front(0)
		if !ok || !s.cfg.Ledger.Has(raw) {
			break
		}
		s.cfg.Log.Debug("on the ledger", "file", name)
		s.seenBy = now.Add(seenTimeout)
		if err := s.seen(); err != nil {
			s.cfg.Log.Error("records", "err", err)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sent > 0 && now.After(s.seenBy) {
		s.cfg.Log.Error("the ledger gave receipts for records that it does not have, they are submitted again", "count", s.sent)
		s.sent = 0
	}
}

// front reads the nth waiting entry. One that cannot be read is not passed over:
// those behind it build on it, so all wait, and each try says so.
func (q *Queue) front(n int) (name string, raw []byte, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.files) <= n {
		return "", nil, false
	}
	name = q.files[n]
	raw, err := q.at.read(name)
	if err != nil {
		q.cfg.Log.Error("record cannot be read, all behind it wait", "file", name, "err", err)
		return "", nil, false
	}
	return name, raw, true
}

// step submits what has no receipt yet, and tells how long to wait then. A
// ledger that cannot be reached is tried again for as long as it takes. What
// is refused will be refused for ever, and ends the claim (see refused).
func (s *submitter) step(ctx context.Context) time.Duration {
	for ctx.Err() == nil {
		s.cfg.Moved()
		now := s.cfg.Clock.Now()
		if wait := s.notNow.Sub(now); wait > 0 {
			return wait
		}
		s.mu.Lock()
		n := s.sent
		s.mu.Unlock()
		name, raw, ok := s.front(n)
		if !ok {
			return lastRetry
		}
		receipt, err := s.cfg.Ledger.Submit(ctx, raw)
		var refused *ledger.Refused
		switch {
		case err == nil:
			s.cfg.Log.Debug("receipt", "file", name, "index", receipt.Index)
			if !s.since.IsZero() {
				s.cfg.Log.Info("the ledger takes records again", "waiting", s.Waiting())
			}
			s.since, s.retry = time.Time{}, firstRetry
			s.mu.Lock()
			if s.sent == 0 {
				s.seenBy = s.cfg.Clock.Now().Add(seenTimeout)
			}
			s.sent++
			s.mu.Unlock()
		case errors.As(err, &refused) && n == 0:
			s.cfg.Log.Error("the ledger refuses a record", "file", name, "err", err)
			if err := s.refused(raw, err); err != nil {
				s.cfg.Log.Error("records", "err", err)
			}
		case errors.As(err, &refused):
			// The verified state does not have those before it yet, so that
			// its word on this one does not count.
			return firstRetry
		case ctx.Err() != nil:
			return 0
		default:
			if s.since.IsZero() {
				s.since = now
			}
			s.cfg.Log.Warn("waiting for the ledger to take records", "for", "submit", "waiting", s.Waiting(), "elapsed", now.Sub(s.since).Round(time.Second), "err", err)
			s.notNow = s.cfg.Clock.Now().Add(s.retry)
			s.retry = min(2*s.retry, lastRetry)
		}
	}
	return 0
}

// seen drops the first entry, which is on the ledger.
func (q *Queue) seen() error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.pop(false)
}
