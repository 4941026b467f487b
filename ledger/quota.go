// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"fmt"
	"sync"
	"time"

	"github.com/zos-node/zos/sign"
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

// Quotas hold each key to a Quota. What they count is what is about to be
// ordered: an entry that is on the log already, or that the rules refuse, costs
// its signers nothing. Everybody can read a key's entries and submit them again,
// whole or with a signature more, and is not to use up that key's share by it.
type Quotas struct {
	q   Quota
	mu  sync.Mutex
	all map[string]bucket
}

type bucket struct {
	left float64
	at   time.Time
}

// NewQuotas makes the buckets, all of them full.
func NewQuotas(q Quota) *Quotas { return &Quotas{q: q, all: map[string]bucket{}} }

// Take takes one entry out of the bucket of each of its signers, or none and
// says in a *Busy whose is empty and after which time it is not.
func (s *Quotas) Take(keys []string, now time.Time) error {
	if s.q.Rate <= 0 {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, key := range keys {
		if b := s.filled(key, now); b.left < 1 {
			wait := time.Duration((1 - b.left) / s.q.Rate * float64(time.Second))
			return &Busy{Quota: true, After: wait, Reason: fmt.Sprintf("key %s has submitted more than its share of %g entries a second; nothing is lost, submit again in %s",
				named(key), s.q.Rate, wait.Round(time.Millisecond))}
		}
	}
	for _, key := range keys {
		b := s.filled(key, now)
		b.left--
		s.all[key] = b
	}
	return nil
}

// filled is the bucket of a key as it is by now.
func (s *Quotas) filled(key string, now time.Time) bucket {
	b, ok := s.all[key]
	if !ok {
		if len(s.all) >= maxBuckets {
			s.forget(now)
		}
		return bucket{s.q.Burst, now}
	}
	b.left = min(b.left+s.q.Rate*max(now.Sub(b.at), 0).Seconds(), s.q.Burst)
	b.at = now
	return b
}

// named is how people know a key: its fingerprint.
func named(key string) string {
	if id, err := sign.Fingerprint(key); err == nil {
		return id
	}
	return key
}

func (s *Quotas) forget(now time.Time) {
	for key, b := range s.all {
		if b.left+s.q.Rate*now.Sub(b.at).Seconds() >= s.q.Burst {
			delete(s.all, key)
		}
	}
	if len(s.all) >= maxBuckets {
		clear(s.all)
	}
}
