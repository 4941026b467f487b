// SPDX-License-Identifier: Apache-2.0

package content

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/zos-node/zos/zimage"
)

// Item is what goes as a whole: a blob, or a disk with its manifest, or one
// that is still on its way, or a file in quarantine.
type Item struct {
	Path       string    // of the finished file
	Files      []string  // paths, in the order in which they are to go
	Bytes      int64     // that they take up
	Used       time.Time // last
	Needed     bool      // by a deployment, or by whoever works on it just now
	Quarantine bool
}

// Limits are what the store has to stay within, in bytes.
type Limits struct {
	Quota    int64 // of all items, and what they are promised to grow by
	Free     int64 // of the file system
	Reserve  int64 // of Free, for the rest of the node
	Promised int64 // of Free and of Quota, to downloads on their way
}

// Need is what room is needed for, in bytes: content counts against the quota,
// other things (volumes) only against the file system.
type Need struct{ Content, Other int64 }

// Decide says which items go so that what is needed fits: the one that was not
// used for longest first, quarantined files last of all, and never one that is
// needed. When even all would not be enough, none goes, and the error is a
// zimage.ErrNoRoom.
func Decide(items []Item, need Need, l Limits) ([]Item, error) {
	have, idle := int64(0), int64(0)
	var idlers []Item
	for _, i := range items {
		have += i.Bytes
		if !i.Needed {
			idle += i.Bytes
			idlers = append(idlers, i)
		}
	}
	var over int64 // what must go
	if need.Content > 0 {
		over = have + l.Promised + need.Content - l.Quota
	}
	over = max(over, need.Content+need.Other+l.Promised+l.Reserve-l.Free)
	if over > idle {
		return nil, fmt.Errorf("%w: needs %d MiB, %d MiB are free (%d MiB are kept for the node, %d MiB for downloads on their way), and nothing can be evicted: the store has %d of %d MiB, of which %d MiB are not in use",
			zimage.ErrNoRoom, ceil(need.Content+need.Other), l.Free/mib, l.Reserve/mib, ceil(l.Promised), ceil(have), l.Quota/mib, idle/mib)
	}
	slices.SortFunc(idlers, func(a, b Item) int {
		if a.Quarantine != b.Quarantine {
			if b.Quarantine {
				return -1
			}
			return 1
		}
		return cmp.Or(a.Used.Compare(b.Used), cmp.Compare(a.Path, b.Path))
	})
	var gone []Item
	for _, i := range idlers {
		if over <= 0 {
			break
		}
		gone = append(gone, i)
		over -= i.Bytes
	}
	return gone, nil
}

func ceil(bytes int64) int64 { return (bytes + mib - 1) / mib }
