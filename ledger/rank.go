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
	need := needs(d.Spec)
	var fit []standing
	for _, n := range s.nodes.vals {
		if !s.holds(d, n.ID) && len(s.match(d, need, n)) == 0 {
			fit = append(fit, standingOf(d, n.ID))
		}
	}
	slices.SortFunc(fit, standing.compare)
	all := make([]Candidate, len(fit))
	for i, f := range fit {
		all[i] = Candidate{Node: f.node, Rank: i, FromMs: s.fromMs(d, open, i)}
	}
	return all
}

// standing is what a node is ranked by for the present attempt at a deployment.
type standing struct {
	node  string
	past  int // how many attempts it gave up
	score [sha256.Size]byte
}

func standingOf(d *Deployment, node string) standing {
	p := standing{node: node, score: score(d.Digest, d.ID, d.Attempt, node)}
	for _, past := range d.Past {
		if past == node {
			p.past++
		}
	}
	return p
}

func (p standing) compare(q standing) int {
	return cmp.Or(cmp.Compare(p.past, q.past), bytes.Compare(q.score[:], p.score[:]))
}

// fromMs is when the node of a rank may claim, with so many places open.
func (s *State) fromMs(d *Deployment, open int64, rank int) int64 {
	return d.SinceMs + max(int64(rank)-open+1, 0)*s.Root().Lease.WindowMs
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
	// Its rank among the candidates is how many of them come before it: those
	// behind it need not be looked at.
	mine, need, rank := standingOf(d, node), needs(d.Spec), 0
	for _, n := range s.nodes.vals {
		if n.ID != node && standingOf(d, n.ID).compare(mine) < 0 && !s.holds(d, n.ID) && len(s.match(d, need, n)) == 0 {
			rank++
		}
	}
	return s.fromMs(d, s.Open(d), rank), nil
}
