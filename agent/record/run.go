// SPDX-License-Identifier: Apache-2.0

package record

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	"github.com/zos-node/zos/ledger"
)

// Run submits what is queued until ctx is over.
func (q *Queue) Run(ctx context.Context) {
	for ctx.Err() == nil {
		q.cfg.Moved()
		select {
		case <-ctx.Done():
			return
		case <-q.cfg.Clock.After(lastRetry): // shows that the loop lives
		case <-q.more:
			q.drain(ctx)
		}
	}
}

// drain submits until nothing is left. A ledger that cannot be reached is
// tried again for as long as it takes; one that refuses an entry will refuse
// it for ever, so it is set aside, loudly.
func (q *Queue) drain(ctx context.Context) {
	retry := firstRetry
	var since time.Time
	for q.Waiting() > 0 && ctx.Err() == nil {
		q.cfg.Moved()
		q.mu.Lock()
		name := q.files[0]
		q.mu.Unlock()
		raw, err := os.ReadFile(filepath.Join(q.cfg.Dir, name))
		if err != nil {
			q.cfg.Log.Error("record cannot be read", "file", name, "err", err)
			q.popped(false)
			continue
		}
		receipt, err := q.cfg.Ledger.Submit(ctx, raw)
		var refused *ledger.Refused
		switch {
		case err == nil:
			q.cfg.Log.Debug("on the ledger", "file", name, "index", receipt.Index)
			if !since.IsZero() {
				q.cfg.Log.Info("the ledger takes records again", "waiting", q.Waiting())
				since = time.Time{}
			}
			retry = firstRetry
			q.popped(false)
		case errors.As(err, &refused):
			q.cfg.Log.Error("the ledger refuses a record", "file", name, "err", err)
			q.popped(true)
		case ctx.Err() != nil:
			return
		default:
			now := q.cfg.Clock.Now()
			if since.IsZero() {
				since = now
			}
			q.cfg.Log.Warn("waiting for the ledger to take records", "for", "submit", "waiting", q.Waiting(), "elapsed", now.Sub(since).Round(time.Second), "err", err)
			select {
			case <-ctx.Done():
				return
			case <-q.cfg.Clock.After(retry):
			}
			retry = min(2*retry, lastRetry)
		}
	}
}

func (q *Queue) popped(refused bool) {
	if err := q.pop(refused); err != nil {
		q.cfg.Log.Error("records", "err", err)
	}
}
