// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
)

// Candidate is a node that may claim a deployment, and from when.
type Candidate struct {
	Node   string `json:"node"`
	Rank   int    `json:"rank"`
	FromMs int64  `json:"fromMs"` // ledger time
}

// score is the rendezvous hash of a node for one attempt at a deployment:
// nobody can choose it, everybody computes the same.
func score(specDigest string, id, attempt int64, node string) [sha256.Size]byte {
	b := append([]byte("hrw1"), specDigest...)
	b = binary.BigEndian.AppendUint64(b, uint64(id))
	b = binary.BigEndian.AppendUint64(b, uint64(attempt))
	return sha256.Sum256(append(b, node...))
}

// Open is how many more nodes a deployment needs.
func (s *State) Open(d *Deployment) int64 {
	if d.Stopped >= 0 || d.Replaced >= 0 {
		return 0
	}
	held := d.Failed
	for _, c := range d.Claims {
		if s.claims.get(c).State == GrantActive {
			held++
		}
	}
	return max(d.Spec.Placement.Replicas-held, 0)
}

// Candidates ranks the nodes that fit a deployment now. With r places open,
// the first r may claim at once, and each later one a window after the one
// before it: a node that is asleep costs a window, not the deployment. Nodes
// that gave up an earlier attempt come last.
func (s *State) Candidates(d *Deployment) []Candidate {
	open := s.Open(d)
	if open == 0 {
		return nil
	}
	type scored struct {
		id    string
		past  int
		score [sha256.Size]byte
	}
	var fit []scored
	for _, n := range s.nodes.vals {
		if s.holds(d, n.ID) || len(s.Match(d, n)) > 0 {
			continue
		}
		c := scored{id: n.ID, score: score(d.Digest, d.ID, d.Attempt, n.ID)}
		for _, p := range d.Past {
			if p == n.ID {
				c.past++
			}
		}
		fit = append(fit, c)
	}
	slices.SortFunc(fit, func(a, b scored) int {
		return cmp.Or(cmp.Compare(a.past, b.past), bytes.Compare(b.score[:], a.score[:]))
	})
	window := s.Root().Lease.WindowMs
	all := make([]Candidate, len(fit))
	for i, f := range fit {
		all[i] = Candidate{Node: f.id, Rank: i, FromMs: d.SinceMs + max(int64(i)-open+1, 0)*window}
	}
	return all
}

// holds says whether a node has a place of the deployment.
func (s *State) holds(d *Deployment, node string) bool {
	return slices.ContainsFunc(d.Claims, func(c int64) bool {
		g := s.claims.get(c)
		return g.Node == node && g.State == GrantActive
	})
}

// MayClaim is the ledger time from which a node may claim a deployment, or
// the reasons why it may not.
func (s *State) MayClaim(d *Deployment, node string) (fromMs int64, reasons []string) {
	n := s.Node(node)
	switch {
	case n == nil:
		return 0, []string{"node is not enrolled"}
	case d.Stopped >= 0:
		return 0, []string{fmt.Sprintf("entry %d stopped it", d.Stopped)}
	case d.Replaced >= 0:
		return 0, []string{fmt.Sprintf("entry %d replaced it", d.Replaced)}
	case s.holds(d, node):
		return 0, []string{"the node holds it already"}
	case s.Open(d) == 0 && d.Failed > 0:
		return 0, []string{"it failed for good"}
	case s.Open(d) == 0:
		return 0, []string{"it has all the nodes that it needs"}
	}
	if reasons = s.Match(d, n); len(reasons) > 0 {
		return 0, reasons
	}
	for _, c := range s.Candidates(d) {
		if c.Node == node {
			return c.FromMs, nil
		}
	}
	return 0, []string{"the node is no candidate"}
}
