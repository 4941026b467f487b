// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// SetNow gives a mirror another clock.
func (m *Mirror) SetNow(now func() time.Time) { m.now = now }

// Skew gives what a mirror writes an entry that its client never had.
func (m *Mirror) Skew(entry []byte) { m.writer.Restore(entry) }

// SetRoots bounds how many roots of trust a client reads.
func (c *Client) SetRoots(most int) { c.limits.roots = most }
