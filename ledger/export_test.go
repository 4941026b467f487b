// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// SetNow gives a mirror another clock.
func (m *Mirror) SetNow(now func() time.Time) { m.now = now }

// Skew gives what a mirror writes an entry that its client never had.
func (m *Mirror) Skew(entry []byte) { m.writer.Restore(entry) }

// SetRoots bounds how many roots of trust a client reads.
func (c *Client) SetRoots(most int) { c.limits.roots = most }

// SetTimes gives a client other times: how long nothing may come, how many bytes a
// second have to, and when another ledger is asked for its snapshot.
func (c *Client) SetTimes(silence time.Duration, rate int64, soon time.Duration) {
	c.limits.silence, c.limits.rate, c.limits.soon = silence, rate, soon
}
