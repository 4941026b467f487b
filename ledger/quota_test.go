// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestQuotaBuckets: each key has its own bucket, which fills; an entry takes
// from all of its signers or from none.
func TestQuotaBuckets(t *testing.T) {
	s, now := NewQuotas(Quota{Rate: 2, Burst: 3}), time.Unix(1_800_000_000, 0)
	wait := func(keys ...string) time.Duration {
		t.Helper()
		err := s.Take(keys, now)
		var busy *Busy
		if err != nil && (!errors.As(err, &busy) || !busy.Quota) {
			t.Fatalf("got %v", err)
		}
		if err == nil {
			return 0
		}
		return busy.After
	}
	for i := range 3 {
		if w := wait("a"); w != 0 {
			t.Fatalf("entry %d waits %s", i, w)
		}
	}
	if w := wait("a"); w != time.Second/2 {
		t.Errorf("an empty bucket waits %s", w)
	}
	for range 5 {
		if w := wait("b", "a"); w == 0 {
			t.Error("an entry is taken although one of its signers has nothing left")
		}
	}
	for i := range 3 {
		if w := wait("b"); w != 0 {
			t.Errorf("b pays for entries that were not taken: entry %d waits %s", i, w)
		}
	}
	now = now.Add(time.Second)
	if wait("a", "b") != 0 || wait("a") != 0 || wait("a") == 0 || wait("b") != 0 {
		t.Error("a second does not fill two entries into each")
	}
	now = now.Add(time.Hour)
	for i := range maxBuckets + 1 {
		if err := s.Take([]string{fmt.Sprint("key ", i)}, now); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.all); n > maxBuckets {
		t.Errorf("%d buckets are kept", n)
	}
	none := NewQuotas(Quota{})
	for range 1000 {
		if err := none.Take([]string{"a"}, now); err != nil {
			t.Fatal(err)
		}
	}
}
