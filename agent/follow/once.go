// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"fmt"
	"time"
)

// again is when a fault that goes on, or comes back, is recorded anew. One that
// lies does so thousands of times, and an auditor wants to see both that it does
// and that it still does.
const again = 10 * time.Minute

// once lets the first fault of a key through, and then one each again, which
// tells how many were held back.
type once struct{ keys map[string]*held }

type held struct {
	since time.Time // when one was let through last
	more  int       // held back since
}

// pass says whether a fault is recorded now, and what to add to its record.
func (o *once) pass(key string, now time.Time) (added string, ok bool) {
	h := o.keys[key]
	switch {
	case h == nil:
		if o.keys == nil {
			o.keys = map[string]*held{}
		}
		o.keys[key] = &held{since: now}
		return "", true
	case now.Sub(h.since) < again:
		h.more++
		return "", false
	}
	if h.more > 0 {
		added = fmt.Sprintf("; %d more since %s", h.more, h.since.UTC().Format(time.RFC3339))
	}
	o.keys[key] = &held{since: now}
	return added, true
}

// hold counts one that cannot be recorded before the last that passed is.
func (o *once) hold(key string) { o.keys[key].more++ }

// lost takes a pass back whose record could not be written.
func (o *once) lost(key string) { delete(o.keys, key) }
