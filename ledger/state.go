// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"sort"

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
	bounds      []bound
	roots       []rootAt
	nodes       table[Node]
	nodeByID    map[string]int64
	vouchers    table[voucherUse]
	voucherByID map[string]int64
	deployments table[Deployment]
	newest      map[string]int64 // name of a deployment to its newest register entry
	claims      table[Grant]
	active      map[int64]bool // claims whose lease runs
	records     map[int64][]Recorded
	incidents   []Reported
	seen        map[[sha256.Size]byte]int64
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
	Digest string // of the payload: one id stands for one voucher
	Used   int64
}

// NewState is the state of the empty log.
func NewState() *State {
	return &State{
		nodeByID: map[string]int64{}, voucherByID: map[string]int64{}, newest: map[string]int64{},
		active: map[int64]bool{}, records: map[int64][]Recorded{}, seen: map[[sha256.Size]byte]int64{},
	}
}

// Clone makes a copy on which Apply does not change the original.
func (s *State) Clone() *State {
	c := *s
	c.bounds, c.roots, c.incidents = slices.Clip(s.bounds), slices.Clip(s.roots), slices.Clip(s.incidents)
	c.nodes, c.vouchers, c.deployments, c.claims = s.nodes.clone(), s.vouchers.clone(), s.deployments.clone(), s.claims.clone()
	c.nodeByID, c.voucherByID, c.newest = maps.Clone(s.nodeByID), maps.Clone(s.voucherByID), maps.Clone(s.newest)
	c.active, c.records, c.seen = maps.Clone(s.active), maps.Clone(s.records), maps.Clone(s.seen)
	return &c
}

// table keeps values by the log index of the entry that made them, in that
// order, each with the digest of its canonical JSON. Values are replaced,
// never changed.
type table[T any] struct {
	keys []int64
	vals []*T
	sums [][sha256.Size]byte
}

func (t *table[T]) clone() table[T] {
	return table[T]{slices.Clone(t.keys), slices.Clone(t.vals), slices.Clone(t.sums)}
}

func (t *table[T]) get(key int64) *T {
	if i, ok := slices.BinarySearch(t.keys, key); ok {
		return t.vals[i]
	}
	return nil
}

func (t *table[T]) put(key int64, v T) {
	b, err := json.Marshal(&v)
	if err != nil {
		// Strings, numbers and maps of them always encode.
		panic(fmt.Sprintf("ledger: encode %T: %v", v, err))
	}
	sum := sha256.Sum256(b)
	i, ok := slices.BinarySearch(t.keys, key)
	if !ok {
		t.keys, t.vals, t.sums = slices.Insert(t.keys, i, key), slices.Insert(t.vals, i, nil), slices.Insert(t.sums, i, sum)
	}
	t.vals[i], t.sums[i] = &v, sum
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
	due := s.expire(now)
	for i, raw := range entries {
		e, change, err := s.admit(now, raw)
		if err != nil {
			out.Refused[i] = err
			continue
		}
		index := s.tree.Size()
		change()
		s.seen[e.id()] = index
		s.tree = s.tree.Append(tlog.RecordHash(raw))
		out.Accepted, out.Indexes[i], out.Leaves = append(out.Accepted, i), index, append(out.Leaves, raw)
	}
	if len(out.Leaves) == 0 && !due {
		out.StateRoot = hex.EncodeToString(s.stateRoot())
		return out
	}
	s.height, s.timeMs = height, now
	out.StateRoot = hex.EncodeToString(s.stateRoot())
	leaf := blockLeaf(Block{Height: height, TimeMs: now, StateRoot: out.StateRoot})
	s.tree = s.tree.Append(tlog.RecordHash(leaf))
	s.bounds = append(s.bounds, bound{s.tree.Size(), s.tree.Hash()})
	out.Leaves = append(out.Leaves, leaf)
	return out
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
	e, err := Decode(raw)
	if err != nil {
		return nil, nil, err
	}
	if i, ok := s.seen[e.id()]; ok {
		return nil, nil, &Refused{Reason: fmt.Sprintf("the same is on the ledger already, as entry %d", i), Index: i}
	}
	keys, err := e.Envelope.Keys()
	if err != nil {
		return nil, nil, refusal("", err)
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

// stateRoot is the SHA-256 over the digests of everything in the state, in
// the order of the log, below a header. What the log itself holds (entries,
// tree, bounds) is not repeated: the checkpoint covers it.
func (s *State) stateRoot() []byte {
	h := sha256.New()
	fmt.Fprintf(h, "zos state v1\n%d %d\n", s.height, s.timeMs)
	for _, r := range s.roots {
		fmt.Fprintf(h, "root %d %s\n", r.Index, HashEntry(r.Envelope))
	}
	for _, part := range []struct {
		name string
		keys []int64
		sums [][sha256.Size]byte
	}{
		{"node", s.nodes.keys, s.nodes.sums}, {"voucher", s.vouchers.keys, s.vouchers.sums},
		{"deployment", s.deployments.keys, s.deployments.sums}, {"claim", s.claims.keys, s.claims.sums},
	} {
		for i, key := range part.keys {
			fmt.Fprintf(h, "%s %d %x\n", part.name, key, part.sums[i])
		}
	}
	return h.Sum(nil)
}

// hadState says whether the log ever ended a block in this state.
func (s *State) hadState(a Acted) error {
	i := sort.Search(len(s.bounds), func(i int) bool { return s.bounds[i].size >= a.Size })
	if i == len(s.bounds) || s.bounds[i].size != a.Size {
		return refuse("acted.size", "is %d, at which no block of this log ended", a.Size)
	}
	if root := hex.EncodeToString(s.bounds[i].root[:]); root != a.Root {
		return refuse("acted.root", "is %s at size %d, but this log had %s: one of the two logs was forked", a.Root, a.Size, root)
	}
	return nil
}
