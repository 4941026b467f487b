// SPDX-License-Identifier: Apache-2.0

package ledger

import "time"

// SetNow gives a mirror another clock.
func (m *Mirror) SetNow(now func() time.Time) { m.now = now }
