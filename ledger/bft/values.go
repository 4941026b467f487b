// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"time"

	"github.com/zos-node/zos/ledger/metrics"
)

// Values are what an operator wants to see of a running engine.
func (e *Engine) Values() []metrics.Value {
	state := func(f func() float64) func() float64 {
		return func() float64 {
			e.app.mu.RLock()
			defer e.app.mu.RUnlock()
			return f()
		}
	}
	present := func(f func(presence) int) func() float64 {
		return func() float64 {
			if p := e.present.Load(); p != nil {
				return float64(f(*p))
			}
			return 0
		}
	}
	return []metrics.Value{
		{Name: "entries", Help: "Entries that were ordered.", Read: state(func() float64 { return float64(e.app.state.Size()) })},
		{Name: "published_entries", Help: "Entries under a cosigned checkpoint.", Read: state(func() float64 { return float64(e.app.durable) })},
		{Name: "unpublished_seconds", Help: "How long the oldest tree has waited for cosignatures.", Read: state(func() float64 {
			if len(e.app.pending) == 0 {
				return 0
			}
			return float64(e.app.now().UnixMilli()-e.app.waitingMs) / 1000
		})},
		{Name: "height", Help: "Height of the last block with entries.", Read: state(func() float64 { return float64(e.app.state.Height()) })},
		{Name: "time_seconds", Help: "Ledger time, Unix seconds.", Read: state(func() float64 { return float64(e.app.state.TimeMs()) / 1000 })},
		{Name: "root_version", Help: "Version of the root of trust.", Read: state(func() float64 { return float64(e.app.state.Root().Version) })},
		{Name: "nodes", Help: "Enrolled nodes.", Read: state(func() float64 { return float64(len(e.app.state.Nodes())) })},
		{Name: "leases", Help: "Claims whose lease runs.", Read: state(func() float64 { return float64(e.app.state.Leases()) })},
		{Name: "snapshot_entries", Help: "Entries that the newest snapshot has.", Read: state(func() float64 { return float64(e.app.snapped) })},
		{Name: "validators_present", Help: "Validators that were heard from within 10 s.", Read: present(func(p presence) int { return len(p.names) })},
		{Name: "validators_missing", Help: "Validators that were not.", Read: present(func(p presence) int { return len(p.missing) })},
		{Name: "validators_needed", Help: "Validators that are needed to go on.", Read: present(func(p presence) int { return p.quorum })},
		{Name: "double_votes", Help: "Proofs that a validator voted for two blocks at once, since the start.", Read: func() float64 { return float64(e.app.double.Load()) }},
		{Name: "mempool_transactions", Help: "Transactions that wait to be ordered.", Read: func() float64 { return float64(e.node.Mempool().Size()) }},
		{Name: "healthy", Help: "1 while entries can be ordered and published.", Read: func() float64 {
			if e.Health() != nil {
				return 0
			}
			return 1
		}},
		{Name: "clock_seconds", Help: "This server's clock, Unix seconds; compare it with that of the others.", Read: func() float64 {
			return float64(e.app.now().UnixMilli()) / float64(time.Second/time.Millisecond)
		}},
	}
}
