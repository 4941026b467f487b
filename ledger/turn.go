// SPDX-License-Identifier: Apache-2.0

package ledger

// Turn is why a node was allowed to claim when it did: its place among the nodes
// that were eligible then. No rule reads it, and so neither the state root nor a
// snapshot has it; whoever wants it folds the log from entry 0 (KeepTurns).
type Turn struct {
	Rank      int   `json:"rank"`      // from 0
	Eligible  int   `json:"eligible"`  // how many nodes had a rank
	Open      int64 `json:"open"`      // how many places were open: the first ranks wait for nothing
	SinceMs   int64 `json:"sinceMs"`   // ledger time at which window 0 began: that of the attempt
	WindowMs  int64 `json:"windowMs"`  // how long a window is
	Window    int64 `json:"window"`    // from which its rank was allowed to claim
	FromMs    int64 `json:"fromMs"`    // ledger time at which that began
	ClaimedIn int64 `json:"claimedIn"` // window in which it claimed
}

// KeepTurns has the state keep the turn of every claim that it grants from now on.
func (s *State) KeepTurns() {
	if s.turns == nil {
		s.turns = map[int64]Turn{}
	}
}

// Turn is why a claim was granted when it was; nil if it was not kept.
func (s *State) Turn(claim int64) *Turn {
	if t, ok := s.turns[claim]; ok {
		return &t
	}
	return nil
}

// turnOf is the turn of a node that claims now, and may.
func (s *State) turnOf(d *Deployment, node string, now int64) Turn {
	open, window := s.Open(d), s.Root().Lease.WindowMs
	t := Turn{Open: open, SinceMs: d.SinceMs, WindowMs: window, ClaimedIn: (now - d.SinceMs) / window}
	mine, need := standingOf(d, node), needs(d.Spec)
	for _, n := range s.nodes.vals {
		if s.holds(d, n.ID) || len(s.match(d, need, n)) > 0 {
			continue
		}
		t.Eligible++
		if n.ID != node && standingOf(d, n.ID).compare(mine) < 0 {
			t.Rank++
		}
	}
	t.Window, t.FromMs = max(int64(t.Rank)-open+1, 0), s.fromMs(d, open, t.Rank)
	return t
}
