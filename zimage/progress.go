// SPDX-License-Identifier: Apache-2.0

package zimage

import "sync"

// reporter adds up progress from several goroutines.
type reporter struct {
	mu          sync.Mutex
	done, total int64
	report      func(done, total int64)
}

func (r *reporter) add(n int64) {
	if r.report == nil || n == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done += n
	r.total = max(r.total, r.done)
	r.report(r.done, r.total)
}

// remaining corrects the estimate of what is still to come.
func (r *reporter) remaining(n int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.total = r.done + n
}
