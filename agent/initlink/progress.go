// SPDX-License-Identifier: Apache-2.0

package initlink

import (
	"fmt"
	"sync"
	"time"
)

// Progress knows when each loop of the agent last moved. A loop that hangs
// silences the heartbeat, whatever the others do.
type Progress struct {
	mu    sync.Mutex
	now   func() time.Time
	loops map[string]loop
}

type loop struct {
	last  time.Time
	limit time.Duration
}

// NewProgress starts with no loops.
func NewProgress(now func() time.Time) *Progress {
	return &Progress{now: now, loops: map[string]loop{}}
}

// Moved says that a loop made progress; it must do so again within limit.
func (p *Progress) Moved(name string, limit time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loops[name] = loop{p.now(), limit}
}

// Done takes a loop off: it ended as it should.
func (p *Progress) Done(name string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.loops, name)
}

// Healthy names a loop that has not moved within its limit.
func (p *Progress) Healthy() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	for name, l := range p.loops {
		if d := p.now().Sub(l.last); d > l.limit {
			return fmt.Errorf("loop %s has not moved for %s", name, d.Round(time.Second))
		}
	}
	return nil
}
