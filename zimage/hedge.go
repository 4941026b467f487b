// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"time"
)

const (
	// firstHedge is how long a chunk may take before anything is known of the
	// line; later it is hedgeFactor times what chunks took of late, but at
	// least leastHedge.
	firstHedge  = 2 * time.Second
	leastHedge  = 100 * time.Millisecond
	hedgeFactor = 4
	// freeHedges may be asked of a second mirror, and then one in hedgeShare
	// chunks: a line that is slow for everybody gets no slower by being asked
	// twice.
	freeHedges = 8
	hedgeShare = 10
)

// pace is what a session knows about how long chunks take.
type pace struct {
	usual  time.Duration // a moving average; 0 is unknown
	asked  int
	hedges int
}

// hedgeAfter is when a second mirror is asked too; 0 is never.
func (p *pace) hedgeAfter() time.Duration {
	if p.hedges >= freeHedges+p.asked/hedgeShare {
		return 0
	}
	if p.usual == 0 {
		return firstHedge
	}
	return max(leastHedge, hedgeFactor*p.usual)
}

// took books how long a good answer took.
func (p *pace) took(d time.Duration) {
	if p.usual == 0 {
		p.usual = d
		return
	}
	p.usual += (d - p.usual) / 8
}

// answer is what one mirror said.
type answer struct {
	mirror string
	body   []byte
	err    error
	took   time.Duration
}

// chunkFrom gets a chunk as each does, but does not wait for a slow mirror:
// when the best one has not answered in time, the next is asked too, and the
// first good answer counts.
func (s *session) chunkFrom(ctx context.Context, what string, get asking) ([]byte, error) {
	s.mu.Lock()
	s.pace.asked++
	late := s.pace.hedgeAfter()
	s.mu.Unlock()
	return s.race(ctx, what, late, get)
}

// asking is one request to one mirror.
type asking func(ctx context.Context, mirror string) ([]byte, error)

// round asks the mirrors in turn until one answer is good: the next one when
// an answer was not, and, once, when the first has been silent for late (0 is
// never). Every answer but a good one goes to judge, which may end the round.
// done says whether there is an end; without one, all have been asked.
func (s *session) round(ctx context.Context, what string, mirrors []string, late time.Duration, get asking,
	judge func(answer) error) (body []byte, done bool, err error) {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	answers := make(chan answer, len(mirrors))
	next, running := 0, 0
	ask := func() {
		mirror := mirrors[next]
		next++
		running++
		go func() {
			start := time.Now()
			b, err := get(ctx, mirror)
			answers <- answer{mirror, b, err, time.Since(start)}
		}()
	}
	var hedge <-chan time.Time
	if late > 0 && len(mirrors) > 1 {
		t := time.NewTimer(late)
		defer t.Stop()
		hedge = t.C
	}
	for ask(); running > 0; {
		select {
		case <-hedge:
			hedge = nil
			if next == len(mirrors) {
				continue
			}
			s.slow(mirrors[next-1], what, late)
			ask()
		case a := <-answers:
			running--
			if a.err == nil {
				s.mu.Lock()
				s.pace.took(a.took)
				s.mu.Unlock()
				return a.body, true, nil
			}
			if err := judge(a); err != nil {
				return nil, true, err
			}
			if running == 0 && next < len(mirrors) {
				ask()
			}
		}
	}
	return nil, false, nil
}

// slow books that a mirror did not answer while others may.
func (s *session) slow(mirror, what string, after time.Duration) {
	s.mu.Lock()
	s.pace.hedges++
	s.demer[mirror]++
	s.mu.Unlock()
	s.log.Info("mirror is slow, asking another", "part", "zimage", "mirror", mirror, "what", what, "elapsed", after)
}
