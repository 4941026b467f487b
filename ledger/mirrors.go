// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// head is what one ledger says is its newest checkpoint.
type head struct {
	from       source
	chain      []*Root // roots of trust that it has, from the trusted one on
	signed     []byte
	checkpoint tiles.Checkpoint
	under      *Root
	rate       float64 // bytes a second of a snapshot that took too long
	missed     error   // why there was no snapshot to start from
	err        error
}

// LedgerStatus is what the last Sync found at one ledger.
type LedgerStatus struct {
	Ledger string `json:"ledger"`
	Size   int64  `json:"size"`  // of its checkpoint, 0 if that was not believed
	State  string `json:"state"` // "ok", "behind", "rolled back", "forked", "forged", "pruned" or "unreachable"
	Error  string `json:"error"` // "" when ok or behind
}

// Ledgers says what the last Sync found at each ledger, in their order.
func (c *Client) Ledgers() []LedgerStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.seen)
}

func (c *Client) report(heads []*head) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen = nil
	for _, h := range heads {
		s := LedgerStatus{Ledger: h.from.String(), Size: h.checkpoint.N, State: "ok"}
		switch {
		case h.err == nil:
			if h.checkpoint.N < c.view.checkpoint.N {
				s.State = "behind"
			}
		case errors.Is(h.err, errBehind):
			s.State = "behind"
		case errors.Is(h.err, ErrFork):
			s.State = "forked"
		case errors.Is(h.err, ErrRollback):
			s.State = "rolled back"
		case errors.Is(h.err, ErrPruned):
			s.State = "pruned"
		case errors.Is(h.err, ErrForged):
			s.State = "forged"
		default:
			s.State = "unreachable"
		}
		if s.State != "ok" && s.State != "behind" {
			s.Error = h.err.Error()
		}
		c.seen = append(c.seen, s)
	}
}

// patience is how long the slower ledgers are waited for once one has
// answered.
const patience = 3 * time.Second

// look asks every ledger for its head.
func (c *Client) look(ctx context.Context) []*head {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	heads := make([]*head, len(c.sources))
	type answer struct {
		i int
		h *head
	}
	answers := make(chan answer, len(c.sources))
	for i, s := range c.sources {
		go func() { answers <- answer{i, c.lookAt(ctx, s)} }()
	}
	var late <-chan time.Time
wait:
	for range c.sources {
		select {
		case a := <-answers:
			heads[a.i] = a.h
			if a.h.err == nil && late == nil {
				late = time.After(patience)
			}
		case <-late:
			break wait
		}
	}
	for i, h := range heads {
		if h == nil {
			heads[i] = &head{from: c.sources[i], err: fmt.Errorf("%w: %s did not answer within %s after another had", ErrUnreachable, c.sources[i], patience)}
		}
	}
	return heads
}

// lookAt asks one ledger. It reads the checkpoint first: a root that is published
// meanwhile is then one too many, not one too few.
func (c *Client) lookAt(ctx context.Context, from source) *head {
	h := &head{from: from}
	signed, err := from.get(ctx, checkpointPath, tiles.MaxCheckpoint)
	if err != nil {
		h.err = err
		return h
	}
	if h.chain, h.err = c.follow(ctx, from); h.err != nil {
		return h
	}
	h.signed = signed
	if h.checkpoint, h.under, err = openCheckpoint(h.chain, signed); err != nil {
		c.forget(from)
		h.err = forged(from, err)
	}
	return h
}

// merged tries the checkpoints of heads none of which holds alone with the
// signatures of all of them: signatures are signatures, wherever they are
// read. Each alone was refused nevertheless.
func merged(heads []*head) []*head {
	var all []*head
	for _, h := range heads {
		again := *h
		if again.merge(heads); again.err == nil {
			all = append(all, &again)
		}
	}
	return all
}

func (h *head) merge(heads []*head) {
	text, _, ok := strings.Cut(string(h.signed), "\n\n")
	if !ok {
		return
	}
	var lines []string
	for _, other := range heads {
		if t, _, ok := strings.Cut(string(other.signed), "\n\n"); ok && t == text {
			lines = append(lines, tiles.Lines(other.signed)...)
		}
	}
	for _, t := range slices.Backward(h.chain) {
		policy := t.Checkpoints()
		tree, err := tiles.ParseTree(policy.Origin, text+"\n")
		if err != nil {
			return
		}
		signed, _, err := policy.Merge(tree, lines)
		if err != nil {
			continue
		}
		if cp, err := policy.Open(signed); err == nil {
			h.checkpoint, h.under, h.err = cp, t, nil
			return
		}
	}
}

var (
	errBehind = errors.New("ledger is behind")                      // a little, which is nobody's fault
	errBoth   = errors.New("two checkpoints contradict each other") // and both are believed
)

// older compares a head with what was seen before.
func (c *Client) older(h *head) error {
	c.mu.Lock()
	floor, since, state := c.floor, c.since, c.view.state
	c.mu.Unlock()
	cp := h.checkpoint
	switch {
	case cp.N == floor.N && cp.Hash != floor.Hash:
		return fmt.Errorf("%w: %s has another root hash at size %d", ErrFork, h.from, cp.N)
	case cp.N >= floor.N:
		return nil
	}
	if was, ok := state.boundAt(cp.N); ok && was != cp.Hash {
		return fmt.Errorf("%w: %s has another root hash at size %d than what was seen before", ErrFork, h.from, cp.N)
	}
	if time.Since(since) < c.cfg.StaleAfter {
		return fmt.Errorf("%w: %w: %s has %d entries, %d were there just before", ErrUnreachable, errBehind, h.from, cp.N, floor.N)
	}
	return fmt.Errorf("%w: %s has %d entries, %d were there before", ErrRollback, h.from, cp.N, floor.N)
}

// against holds a head against a newer view. It returns errBoth if the two
// cannot both be true although nothing else is wrong with this one.
func (c *Client) against(ctx context.Context, v *view, h *head) error {
	cp := h.checkpoint
	was, ok := v.state.boundAt(cp.N)
	if ok && was == cp.Hash {
		return nil
	}
	// It is its own fault if it does not hold by itself: not the log that was
	// there before, or not one that the rules allow.
	if _, err := c.tryWays(ctx, h); err != nil {
		return err
	}
	return errBoth
}

// boundAt is the root of the log at a size at which a block ended.
func (s *State) boundAt(size int64) (tlog.Hash, bool) {
	i := sort.Search(s.bounds.len(), func(i int) bool { return s.bounds.at(i).size >= size })
	if i == s.bounds.len() || s.bounds.at(i).size != size {
		return tlog.Hash{}, false
	}
	return s.bounds.at(i).root, true
}

// ActedOn is the state that a node's entry acts on, if it is one.
func (e *Entry) ActedOn() (Acted, bool) {
	switch p := e.Payload.(type) {
	case *Enrol:
		return p.Acted, true
	case *Capacity:
		return p.Acted, true
	case *Claim:
		return p.Acted, true
	case *Renew:
		return p.Acted, true
	case *Release:
		return p.Acted, true
	case *Record:
		return p.Acted, true
	case *Incident:
		return p.Acted, true
	case *Close:
		return p.Acted, true
	case *Update:
		return p.Acted, true
	}
	return Acted{}, false
}

// Ahead says whether an entry acts on a state that this one has not come to
// yet: the node has seen a checkpoint of a server that is further.
func (s *State) Ahead(e *Entry) bool {
	a, ok := e.ActedOn()
	return ok && a.Size > s.Size()
}
