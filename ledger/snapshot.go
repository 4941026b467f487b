// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// A snapshot is the state at the end of a block, as one file, so that who
// starts late need not apply every entry. It proves nothing by itself: the
// state root computed from it has to be the one in the block's leaf, and a
// cosigned checkpoint covers that leaf. Whoever starts from one therefore
// believes more than two thirds of the validators that they applied the rules;
// whoever folds the log believes nobody. It has no records and no incidents.
//
// Numbers are 64 bit, big-endian. A list is its length and its members; bytes
// are their length and themselves.
//
//	"zos-snapshot-v1\n", height, timeMs, size, list of edge hashes
//	roots        list of index, envelope
//	nodes, vouchers, claims, revocations   list of index, JSON
//	deployments  list of index, JSON, register entry
//	blocks       list of size, root hash
//	entries      list of SHA-256 of what it says, index
//	node releases, rollouts, updates   list of index, JSON; not there when nothing was released
const snapshotMagic = "zos-snapshot-v1\n"

// Places in a log.
const (
	checkpointPath = "checkpoint"
	snapshotPath   = "snapshot"
)

// Snapshot writes the state.
func (s *State) Snapshot() []byte {
	w := snapWriter{bytes.NewBufferString(snapshotMagic)}
	w.num(s.height)
	w.num(s.timeMs)
	w.num(s.tree.Size())
	edges := s.tree.Edges()
	w.num(int64(len(edges)))
	for _, e := range edges {
		w.Write(e[:])
	}
	for _, p := range s.inSnapshot() {
		p.write(w)
	}
	return w.Bytes()
}

type snapWriter struct{ *bytes.Buffer }

func (w snapWriter) num(n int64) { w.Write(binary.BigEndian.AppendUint64(nil, uint64(n))) }

func (w snapWriter) bytes(b []byte) {
	w.num(int64(len(b)))
	w.Write(b)
}

func writeTable[T any](w snapWriter, t *table[T], more func(*T) []byte) {
	w.num(int64(t.len()))
	for i, v := range t.vals {
		b, err := json.Marshal(v)
		if err != nil {
			panic(fmt.Sprintf("ledger: encode %T: %v", v, err)) // as in put, which did it before
		}
		w.num(t.keys[i])
		w.bytes(b)
		if more != nil {
			w.bytes(more(v))
		}
	}
}

// OpenSnapshot reads a snapshot. The state is whole, and its StateRoot is
// computed from all of it; whether it is a state that the ledger had is for
// that root to say.
func OpenSnapshot(b []byte) (*State, error) {
	r := newSnapReader(bytes.NewReader(b), int64(len(b)), errors.New("ends too early"))
	return readSnapshot(r, func(*State) error { return nil })
}

// readSnapshot reads a snapshot as it comes. It calls begun once it knows of which
// tree it is: what is not of the log need not be read any further.
func readSnapshot(r *snapReader, begun func(*State) error) (*State, error) {
	if string(r.fixed(len(snapshotMagic))) != snapshotMagic && r.err == nil {
		r.fail(errors.New("does not begin as one"))
	}
	s := NewState()
	s.height, s.timeMs = r.num(), r.num()
	size, n := r.num(), r.num()
	if n > 64 {
		r.fail(errors.New("has a tree that is too high"))
	}
	var edges []tlog.Hash
	for range n {
		if r.err != nil {
			break
		}
		edges = append(edges, tlog.Hash(r.fixed(tlog.HashSize)))
	}
	var ok bool
	if s.tree, ok = tiles.NewTree(size, edges); !ok {
		r.fail(errors.New("has no tree"))
	}
	if r.err != nil {
		return nil, fmt.Errorf("snapshot: %w", r.err)
	}
	if err := begun(s); err != nil {
		return nil, err
	}
	r.size = size
	for range r.list(16) {
		index, envelope := r.num(), r.bytes()
		if r.err != nil {
			break
		}
		root, _, err := DecodeRoot(envelope)
		if err != nil {
			return nil, fmt.Errorf("snapshot: root of entry %d: %w", index, err)
		}
		s.root(rootAt{index, root, envelope})
	}
	readTable(r, &s.nodes, nil)
	readTable(r, &s.vouchers, nil)
	readTable(r, &s.claims, nil)
	readTable(r, &s.revoked, nil)
	readTable(r, &s.deployments, openDeployment)
	var bounds []bound
	for i := range r.list(40) {
		bound := bound{size: r.num()}
		copy(bound.root[:], r.fixed(tlog.HashSize))
		if r.err != nil {
			break
		}
		if i > 0 && bound.size <= bounds[i-1].size {
			r.fail(errors.New("blocks are not in order"))
			break
		}
		bounds = append(bounds, bound)
	}
	readSaid(r, s)
	if r.more() {
		readTable(r, &s.releases, nil)
		readTable(r, &s.rollouts, nil)
		readTable(r, &s.updates, nil)
		if !s.hasSoftware() {
			r.fail(errors.New("has an empty list of releases"))
		}
	}
	if r.more() {
		r.fail(errors.New("has bytes too many"))
	}
	if r.err != nil {
		return nil, fmt.Errorf("snapshot: %w", r.err)
	}
	if len(bounds) == 0 || len(s.roots) == 0 {
		return nil, errors.New("snapshot: has no block, or no root of trust")
	}
	if err := s.index(bounds); err != nil {
		return nil, fmt.Errorf("snapshot: %w", err)
	}
	return s, nil
}

// index computes what follows from the rest.
func (s *State) index(bounds []bound) error {
	last := bounds[len(bounds)-1]
	if last.size != s.tree.Size() || last.root != s.tree.Hash() {
		return errors.New("the last block does not end with the tree")
	}
	for _, b := range bounds[:len(bounds)-1] {
		s.bound(b)
	}
	s.last = s.stateRoot() // without the last block's own bound, as its leaf has it
	s.bound(last)
	for i, n := range s.nodes.vals {
		s.nodeByID[n.ID] = s.nodes.keys[i]
	}
	for i, v := range s.vouchers.vals {
		s.voucherByID[v.ID] = s.vouchers.keys[i]
	}
	for i, r := range s.revoked.vals {
		if r.Index != s.revoked.keys[i] {
			return fmt.Errorf("revocation %d stands at %d", r.Index, s.revoked.keys[i])
		}
		s.revokedKey[r.KeyID] = r.Index
	}
	if err := s.indexSoftware(); err != nil {
		return err
	}
	for i, d := range s.deployments.vals {
		if d.ID != s.deployments.keys[i] || d.RootVersion < 1 || d.RootVersion > int64(len(s.roots)) {
			return fmt.Errorf("deployment %d stands at %d", d.ID, s.deployments.keys[i])
		}
		s.newest[d.Name] = d.ID
	}
	for i, g := range s.claims.vals {
		if g.Index != s.claims.keys[i] || s.deployments.get(g.Deployment) == nil || s.Node(g.Node) == nil {
			return fmt.Errorf("claim %d stands at %d, or its deployment or node is missing", g.Index, s.claims.keys[i])
		}
		if g.State == GrantActive {
			s.active[g.Index] = true
			s.expires(g)
		}
	}
	for _, d := range s.deployments.vals {
		for _, c := range d.Claims {
			if s.claims.get(c) == nil {
				return fmt.Errorf("claim %d of deployment %d is missing", c, d.ID)
			}
		}
	}
	return nil
}
