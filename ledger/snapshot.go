// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"time"

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

// Places in a log; maxSnapshot bounds what stands in the second.
const (
	checkpointPath = "checkpoint"
	snapshotPath   = "snapshot"
	maxSnapshot    = 1 << 30
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
	rest, ok := bytes.CutPrefix(b, []byte(snapshotMagic))
	if !ok {
		return nil, errors.New("snapshot: does not begin as one")
	}
	s := NewState()
	r := &snapReader{b: rest}
	s.height, s.timeMs = r.num(), r.num()
	size := r.num()
	edges := make([]tlog.Hash, r.list(tlog.HashSize))
	for i := range edges {
		copy(edges[i][:], r.take(tlog.HashSize))
	}
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
		bound := bound{size: r.num(), root: tlog.Hash(r.take(tlog.HashSize))}
		if i > 0 && bound.size <= bounds[i-1].size {
			r.fail(errors.New("blocks are not in order"))
			break
		}
		bounds = append(bounds, bound)
	}
	readSaid(r, s)
	if r.err == nil && len(r.b) > 0 {
		readTable(r, &s.releases, nil)
		readTable(r, &s.rollouts, nil)
		readTable(r, &s.updates, nil)
		if !s.hasSoftware() {
			r.fail(errors.New("has an empty list of releases"))
		}
	}
	if r.err == nil && len(r.b) > 0 {
		r.err = fmt.Errorf("has %d bytes too many", len(r.b))
	}
	if r.err != nil {
		return nil, fmt.Errorf("snapshot: %w", r.err)
	}
	if s.tree, ok = tiles.NewTree(size, edges); !ok || len(bounds) == 0 || len(s.roots) == 0 {
		return nil, errors.New("snapshot: has no block, no root of trust, or no tree")
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

// errNoSnapshot says that there is no snapshot to start from: none is there, it is
// too new, or it did not come. That is no fault; what a wrong one is.
var errNoSnapshot = errors.New("no snapshot to start from")

// fromSnapshot begins with a source's snapshot, which the checkpoint's tree proves.
func fromSnapshot(ctx context.Context, h *head, hashes tlog.HashReader) (_ *State, err error) {
	from, tree := h.from, h.checkpoint.Tree
	begin := time.Now()
	body, err := from.open(ctx, snapshotPath)
	var b []byte
	if err == nil {
		defer func() { err = errors.Join(err, body.Close()) }()
		b, err = io.ReadAll(io.LimitReader(body, maxSnapshot+1))
		h.rate = float64(len(b)) / time.Since(begin).Seconds()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("%w: %s has none", errNoSnapshot, from)
	case err != nil:
		return nil, fmt.Errorf("%w: %w", errNoSnapshot, err)
	case len(b) > maxSnapshot:
		return nil, forged(from, fmt.Errorf("snapshot: has more than the %d bytes that are allowed", maxSnapshot))
	}
	s, err := OpenSnapshot(b)
	if err != nil {
		return nil, forged(from, err)
	}
	if s.Size() > tree.N {
		return nil, fmt.Errorf("%w: %s has one of %d entries, which is newer than its checkpoint", errNoSnapshot, from, s.Size())
	}
	if s.Size() < 2 {
		return nil, forged(from, errors.New("snapshot: is of an empty log"))
	}
	was, err := tlog.TreeHash(s.Size(), hashes)
	if err != nil {
		return nil, forged(from, err)
	}
	if was != s.tree.Hash() {
		return nil, forged(from, fmt.Errorf("snapshot: has another tree of size %d than the log", s.Size()))
	}
	var leaf []byte
	err = eachEntry(ctx, from, tree, hashes, s.Size()-1, s.Size(), func(_ int64, raw []byte) error {
		leaf = slices.Clone(raw)
		return nil
	})
	if err != nil {
		return nil, err
	}
	want := blockLeaf(Block{Height: s.height, TimeMs: s.timeMs, StateRoot: s.StateRoot()})
	if !bytes.Equal(leaf, want) {
		return nil, forged(from, fmt.Errorf("snapshot: has state root %s, but the block that ends with entry %d has another", s.StateRoot(), s.Size()-1))
	}
	return s, nil
}
