// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/ledger"
)

// reserve is what a server leaves free on its disk unless it is told else: it
// is enough for what others order in the meantime, and for a start.
const reserve = 256 << 20

// room refuses to take more when the disk is nearly full. A validator that
// cannot write ends, and stays away until there is room; so it stops taking
// entries while it still can write those of others.
func (e *Engine) room() error {
	var s unix.Statfs_t
	if err := unix.Statfs(e.dir, &s); err != nil {
		return fmt.Errorf("look at the disk of %s: %w", e.dir, err)
	}
	if free := int64(s.Bavail) * s.Bsize; free < e.reserve {
		return &ledger.Busy{After: time.Minute,
			Reason: fmt.Sprintf("the disk of this server is full: %d MiB are free, %d are kept in reserve; nothing is lost, submit to another server or when there is room", free>>20, e.reserve>>20)}
	}
	return nil
}
