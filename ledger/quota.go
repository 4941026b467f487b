// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"sync"
	"time"
)

// Quota is how much one key may submit, as a bucket that fills by Rate entries
// a second up to Burst. The zero Quota is no limit.
type Quota struct {
	Rate  float64
	Burst float64
}

// maxBuckets bounds how many keys are remembered. Where more submit at once,
// the full buckets are forgotten first, which changes nothing.
const maxBuckets = 100_000

// quotas keeps the bucket of each key.
type quotas struct {
	q   Quota
	mu  sync.Mutex
	all map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

func newQuotas(q Quota) *quotas { return &quotas{q: q, all: map[string]bucket{}} }

// take takes one entry out of a key's bucket, or says after which time there
// is one.
func (s *quotas) take(key string, now time.Time) (wait time.Duration) {
	if s.q.Rate <= 0 {
		return 0
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.all[key]
	if !ok {
		b = bucket{s.q.Burst, now}
		if len(s.all) >= maxBuckets {
			s.forget(now)
		}
	}
	b.left = min(b.left+s.q.Rate*max(now.Sub(b.at), 0).Seconds(), s.q.Burst)
	b.at = now
	if b.left < 1 {
		s.all[key] = b
		return time.Duration((1 - b.left) / s.q.Rate * float64(time.Second))
	}
	b.left--
	s.all[key] = b
	return 0
}

func (s *quotas) forget(now time.Time) {
	for key, b := range s.all {
		if b.left+s.q.Rate*now.Sub(b.at).Seconds() >= s.q.Burst {
			delete(s.all, key)
		}
	}
	if len(s.all) >= maxBuckets {
		clear(s.all)
	}
}
