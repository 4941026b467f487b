// SPDX-License-Identifier: Apache-2.0

package content

import (
	"fmt"
	"time"
)

// counts are since the agent's start.
type counts struct {
	evictions, evicted, found int64
	scrubbed                  time.Time
}

// Usage is how the store stands.
type Usage struct {
	Items         int   // blobs and images, whole or on their way
	MiB           int64 // that they and quarantined files take up
	NeededMiB     int64 // of them, by deployments
	QuarantineMiB int64
	QuotaMiB      int64
	Evictions     int64 // since the agent's start, as the following
	EvictedMiB    int64
	Found         int64     // files that were wrong
	Scrubbed      time.Time // when everything was last hashed again; zero: not yet
}

// String is a line for people.
func (u Usage) String() string {
	return fmt.Sprintf("store: %d items, %d of %d MiB, %d MiB needed, %d MiB in quarantine, %d evictions (%d MiB)",
		u.Items, u.MiB, u.QuotaMiB, u.NeededMiB, u.QuarantineMiB, u.Evictions, u.EvictedMiB)
}

// Usage looks at what is there.
func (s *Store) Usage() (Usage, error) {
	items, err := s.items()
	if err != nil {
		return Usage{}, err
	}
	space, err := s.Space(s.Dir)
	if err != nil {
		return Usage{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{QuotaMiB: space.QuotaMiB, Evictions: s.counts.evictions, EvictedMiB: ceil(s.counts.evicted), Found: s.counts.found, Scrubbed: s.counts.scrubbed}
	var all, needed, quarantined int64
	for _, i := range items {
		all += i.Bytes
		switch {
		case i.Quarantine:
			quarantined += i.Bytes
			continue
		case i.Needed:
			needed += i.Bytes
		}
		u.Items++
	}
	u.MiB, u.NeededMiB, u.QuarantineMiB = ceil(all), ceil(needed), ceil(quarantined)
	return u, nil
}

// say shows on the console how the store stands after a change.
func (s *Store) say() {
	u, err := s.Usage()
	if err != nil {
		s.Log.Warn("the store's size is not known", "err", err)
		return
	}
	s.Log.Info("store", "items", u.Items, "MiB", u.MiB, "quotaMiB", u.QuotaMiB, "neededMiB", u.NeededMiB, "quarantineMiB", u.QuarantineMiB,
		"evictions", u.Evictions, "evictedMiB", u.EvictedMiB, "wrongFiles", u.Found)
}
