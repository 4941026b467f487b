// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"fmt"
	"strings"
)

// Fold rebuilds a state from the leaves of a log. It believes nothing that
// the log says about itself: each block is applied again, every entry of it
// has to be accepted, and the block's leaf has to come out the same, byte for
// byte, with its state root.
type Fold struct {
	state   *State
	pending [][]byte
	cache   *Cache
}

// NewFold folds into s, which it changes.
func NewFold(s *State) *Fold { return &Fold{state: s, cache: NewCache()} }

// Ahead opens leaves that come next, on all processors: whoever has them early
// can let that go on while Add has those before. Without, Add does it.
func (f *Fold) Ahead(leaves [][]byte) { f.cache.ahead(leaves) }

// Genesis makes the first leaves of a log: its root of trust and a block leaf.
func Genesis(rootEnvelope []byte, timeMs int64) ([][]byte, error) {
	out := NewState().Apply(0, timeMs, [][]byte{rootEnvelope})
	if err := out.Refused[0]; err != nil {
		return nil, err
	}
	return out.Leaves, nil
}

// IsBlock says whether a leaf is the one that ends a block.
func IsBlock(leaf []byte) bool {
	return strings.HasPrefix(string(leaf[:min(len(leaf), 128)]), `{"payloadType":"`+TypeBlock+`"`)
}

// Add takes the next leaf.
func (f *Fold) Add(leaf []byte) error {
	if !IsBlock(leaf) {
		f.pending = append(f.pending, bytes.Clone(leaf))
		return nil
	}
	at := f.state.Size() + int64(len(f.pending))
	e, _, err := f.cache.Open(leaf)
	if err != nil {
		return fmt.Errorf("entry %d: %w", at, err)
	}
	b, ok := e.Payload.(*Block)
	if !ok {
		return fmt.Errorf("entry %d: is no block leaf", at)
	}
	if f.state.Size() > 0 && b.Height <= f.state.Height() {
		return fmt.Errorf("entry %d: block height %d does not follow %d", at, b.Height, f.state.Height())
	}
	first := f.state.Size()
	if f.state.cache == nil { // it is the state's no longer than that
		f.state.cache = f.cache
		defer func() { f.state.cache = nil }()
	}
	out := f.state.Apply(b.Height, b.TimeMs, f.pending)
	for i := range f.pending {
		if err := out.Refused[i]; err != nil {
			return fmt.Errorf("entry %d: should not have entered the ledger: %w", first+int64(i), err)
		}
	}
	f.pending = nil
	if len(out.Leaves) == 0 {
		return fmt.Errorf("entry %d: is the leaf of a block in which nothing happened", at)
	}
	if mine := out.Leaves[len(out.Leaves)-1]; !bytes.Equal(mine, leaf) {
		return fmt.Errorf("entry %d: block leaf is %s, but replaying the block gives state root %s at %d ms", at, e.Envelope.Payload, out.StateRoot, f.state.TimeMs())
	}
	return nil
}

// Done says whether the leaves so far end with a whole block.
func (f *Fold) Done() error {
	if len(f.pending) > 0 {
		return fmt.Errorf("the log ends inside a block: %d entries after entry %d have no block leaf", len(f.pending), f.state.Size()-1)
	}
	return nil
}
