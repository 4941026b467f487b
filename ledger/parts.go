// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"slices"
)

// part is a table or list of which a state is made.
type part struct {
	name  string
	place int // in a snapshot
	of    any // pointer to it: a test holds that no table of State is missing
	n     int
	sum   sum
	write func(snapWriter)
}

// parts is the one list of all that Apply decides by, in the order of the state
// root. The state root covers them and a snapshot has them: what one has and the
// other does not, whoever makes a snapshot could put there or leave out.
func (s *State) parts() []part {
	all := []part{
		{"root", 0, &s.roots, len(s.roots), s.rootsSum, s.writeRoots},
		partOf("node", 1, &s.nodes, nil),
		partOf("voucher", 2, &s.vouchers, nil),
		partOf("deployment", 5, &s.deployments, func(d *Deployment) []byte { return d.Envelope }),
		partOf("claim", 3, &s.claims, nil),
		partOf("revocation", 4, &s.revoked, nil),
		{"entry", 7, &s.said, s.said.len(), s.saidSum, s.writeSaid},
		{"block", 6, &s.bounds, s.bounds.len(), s.boundsSum, s.writeBounds},
	}
	if s.hasSoftware() { // a log without any has the root that it always had
		all = append(all, partOf("node-release", 8, &s.releases, nil), partOf("rollout", 9, &s.rollouts, nil), partOf("update", 10, &s.updates, nil))
	}
	return all
}

// inSnapshot are the parts in the order of a snapshot.
func (s *State) inSnapshot() []part {
	return slices.SortedFunc(slices.Values(s.parts()), func(a, b part) int { return cmp.Compare(a.place, b.place) })
}

// partOf is a table; more is what a snapshot has beside each value.
func partOf[T any](name string, place int, t *table[T], more func(*T) []byte) part {
	return part{name, place, t, t.len(), t.sum(), func(w snapWriter) { writeTable(w, t, more) }}
}

func (s *State) writeRoots(w snapWriter) {
	w.num(int64(len(s.roots)))
	for _, r := range s.roots {
		w.num(r.Index)
		w.bytes(r.Envelope)
	}
}

func (s *State) writeBounds(w snapWriter) {
	w.num(int64(s.bounds.len()))
	for i := range s.bounds.len() {
		b := s.bounds.at(i)
		w.num(b.size)
		w.Write(b.root[:])
	}
}

func (s *State) writeSaid(w snapWriter) {
	w.num(int64(s.said.len()))
	for i := range s.said.len() {
		h := s.said.at(i)
		w.Write(h.id[:])
		w.num(h.index)
	}
}
