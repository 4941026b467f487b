// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// State is what the entries so far add up to. It changes by Apply alone,
// which is pure: the same blocks give the same state on every machine. What
// views return is never changed afterwards; a later Apply replaces it.
type State struct {
	tree   tiles.Tree
	height int64
	timeMs int64
	// bounds are the (size, root) at the end of each block: the states that a
	// node can have acted on.
	bounds      list[bound]
	roots       []rootAt
	nodes       table[Node]
	nodeByID    map[string]int64
	vouchers    table[voucherUse]
	voucherByID map[string]int64
	deployments table[Deployment]
	newest      map[string]int64 // name of a deployment to its newest register entry
	claims      table[Grant]
	revoked     table[Revocation]
	revokedKey  map[string]int64 // fingerprint to the entry that revokes it
	active      map[int64]bool   // claims whose lease runs
	leases      leases           // when they run out
	records     map[int64][]Recorded
	incidents   []Reported
	releases    table[Released]
	rollouts    table[Rolled]
	updates     table[Updated]
	updatedBy   map[updateKey]int64 // the last word of a node about a rollout
	seen        positions
	said        list[heard] // what seen holds, in the order of the log
	// Of lists that only grow, the state root holds a chain of digests.
	boundsSum, rootsSum, saidSum sum
	// last is the state root that the last block leaf has. The bound of that
	// block is not in it: it has the leaf itself.
	last sum
	// turns are kept for auditors, or nil.
	turns map[int64]Turn
	// cache is of no account for what Apply comes to.
	cache *Cache
}

// heard is an entry that was accepted: what it says and where it stands.
type heard struct {
	id    sum
	index int64
}

type bound struct {
	size int64
	root tlog.Hash
}

type rootAt struct {
	Index    int64
	Root     *Root
	Envelope []byte
}

type voucherUse struct {
	ID     string
	Digest string // of the payload: one id stands for one voucher
	Used   int64
}

// NewState is the state of the empty log.
func NewState() *State {
	return &State{
		nodeByID: map[string]int64{}, voucherByID: map[string]int64{}, newest: map[string]int64{},
		active: map[int64]bool{}, records: map[int64][]Recorded{}, revokedKey: map[string]int64{},
		updatedBy: map[updateKey]int64{},
	}
}

// Clone makes a copy on which Apply does not change the original.
func (s *State) Clone() *State {
	c := *s
	c.bounds, c.said, c.seen = s.bounds.clone(), s.said.clone(), s.seen.clone()
	c.roots, c.incidents = slices.Clip(s.roots), slices.Clip(s.incidents)
	c.nodes, c.vouchers, c.deployments, c.claims = s.nodes.clone(), s.vouchers.clone(), s.deployments.clone(), s.claims.clone()
	c.nodeByID, c.voucherByID, c.newest = maps.Clone(s.nodeByID), maps.Clone(s.voucherByID), maps.Clone(s.newest)
	c.leases = slices.Clone(s.leases)
	c.revoked, c.revokedKey = s.revoked.clone(), maps.Clone(s.revokedKey)
	c.releases, c.rollouts, c.updates, c.updatedBy = s.releases.clone(), s.rollouts.clone(), s.updates.clone(), maps.Clone(s.updatedBy)
	c.active, c.records, c.turns = maps.Clone(s.active), maps.Clone(s.records), maps.Clone(s.turns)
	return &c
}

// Outcome is what a block of entries came to. Positions are those in the
// block. Leaves are the accepted entries and the block's own leaf; there are
// none when nothing was accepted and nothing became due.
type Outcome struct {
	Accepted  []int
	Indexes   map[int]int64 // position to log index, accepted ones only
	Refused   map[int]error // of type *Refused
	Leaves    [][]byte
	StateRoot string // 64 hex digits
}

// at is where and when an entry would stand.
type at struct {
	index  int64
	timeMs int64
}

// Apply decides which of the entries may enter, in their order, and makes
// them part of the state. timeMs is the block's time; time never goes back.
func (s *State) Apply(height, timeMs int64, entries [][]byte) Outcome {
	out := Outcome{Indexes: map[int]int64{}, Refused: map[int]error{}}
	now := max(timeMs, s.timeMs)
	defer s.trim()
	s.cache.ahead(entries)
	due := s.expire(now)
	for i, raw := range entries {
		e, change, err := s.admit(now, raw)
		if err != nil {
			out.Refused[i] = err
			continue
		}
		index := s.tree.Size()
		change()
		s.hear(heard{e.id(), index})
		s.tree = s.tree.Append(tlog.RecordHash(raw))
		out.Accepted, out.Indexes[i], out.Leaves = append(out.Accepted, i), index, append(out.Leaves, raw)
	}
	if len(out.Leaves) == 0 && !due {
		out.StateRoot = s.StateRoot()
		return out
	}
	s.height, s.timeMs = height, now
	s.last = s.stateRoot()
	out.StateRoot = s.StateRoot()
	leaf := blockLeaf(Block{Height: height, TimeMs: now, StateRoot: out.StateRoot})
	s.tree = s.tree.Append(tlog.RecordHash(leaf))
	s.bound(bound{s.tree.Size(), s.tree.Hash()})
	out.Leaves = append(out.Leaves, leaf)
	return out
}

// Tree is the right edge of the log's tree.
func (s *State) Tree() tiles.Tree { return s.tree }

// bound notes the end of a block, hear an entry; root a root of trust.
func (s *State) bound(b bound) {
	s.bounds.add(b)
	s.boundsSum = chain(s.boundsSum, binary.BigEndian.AppendUint64(b.root[:], uint64(b.size)))
}

func (s *State) hear(h heard) {
	s.said.add(h)
	s.seen.put(h.id, h.index)
	s.saidSum = h.chain(s.saidSum)
}

func (s *State) root(r rootAt) {
	s.roots = append(s.roots, r)
	s.rootsSum = chain(s.rootsSum, binary.BigEndian.AppendUint64([]byte(HashEntry(r.Envelope)), uint64(r.Index)))
}

// chain is the digest of all that was said with one more.
func (h heard) chain(before sum) sum {
	return chain(before, binary.BigEndian.AppendUint64(h.id[:], uint64(h.index)))
}

// chain is the digest of a list with one more member.
func chain(before sum, member []byte) sum {
	return sha256.Sum256(append(before[:len(before):len(before)], member...))
}

// Check says whether an entry could enter now, without letting it in. When
// the same was said before, the refusal has the index of that entry.
func (s *State) Check(timeMs int64, raw []byte) error {
	_, _, err := s.admit(max(timeMs, s.timeMs), raw)
	return err
}

// admit applies the rules to one entry. Rules only read; what an accepted
// entry changes is in the function returned.
func (s *State) admit(now int64, raw []byte) (*Entry, func(), error) {
	e, keys, wrong := s.cache.Open(raw)
	if e == nil {
		return nil, nil, wrong
	}
	if wrong != nil {
		return nil, nil, wrong
	}
	if i, ok := s.seen.get(e.id()); ok {
		return nil, nil, &Refused{Reason: fmt.Sprintf("the same is on the ledger already, as entry %d", i), Index: i}
	}
	var err error
	if keys, err = s.valid(e, keys); err != nil {
		return nil, nil, err
	}
	a := at{s.tree.Size(), now}
	if len(s.roots) == 0 && e.Type != TypeRoot {
		return nil, nil, refuse("payloadType", "is %s, but the first entry of a log is its root of trust", e.Type)
	}
	var change func()
	switch p := e.Payload.(type) {
	case *Root:
		change, err = s.applyRoot(a, p, keys, raw)
	case *Enrol:
		change, err = s.applyEnrol(a, p, keys)
	case *Revoke:
		change, err = s.applyRevoke(a, p, keys)
	case *NodeRelease, *ChunkedRelease, *Rollout:
		change, err = s.applySoftware(a, e, keys)
	default:
		if e.Type == TypeDeployment || e.Type == TypeStop {
			change, err = s.applyDeployment(a, e, keys)
		} else {
			change, err = s.applyNode(a, e, keys)
		}
	}
	if err != nil {
		return nil, nil, err
	}
	return e, change, nil
}

// stateRoot is the digest of everything that Apply decides by: the trees of the
// tables and the chains of the lists. What it costs does not depend on how
// much there is. Records and incidents are not in it: no rule reads them, and
// the checkpoint covers their entries.
func (s *State) stateRoot() (root sum) {
	h := sha256.New()
	fmt.Fprintf(h, "zos state v2\n%d %d %d\n", s.height, s.timeMs, s.bounded())
	for _, p := range s.parts() {
		fmt.Fprintf(h, "%s %d %x\n", p.name, p.n, p.sum)
	}
	h.Sum(root[:0])
	return root
}

// bounded is the size of the log at the end of the block before.
func (s *State) bounded() int64 {
	if s.bounds.len() == 0 {
		return 0
	}
	return s.bounds.at(s.bounds.len() - 1).size
}

// hadState says whether the log ever ended a block in this state.
func (s *State) hadState(a Acted) error {
	was, ok := s.boundAt(a.Size)
	if !ok {
		return refuse("acted.size", "is %d, at which no block of this log ended", a.Size)
	}
	if root := hex.EncodeToString(was[:]); root != a.Root {
		return refuse("acted.root", "is %s at size %d, but this log had %s: one of the two logs was forked", a.Root, a.Size, root)
	}
	return nil
}
