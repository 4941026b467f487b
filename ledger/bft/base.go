// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cometbft/cometbft/config"
	cmtproto "github.com/cometbft/cometbft/proto/tendermint/types"
	sm "github.com/cometbft/cometbft/state"
	"github.com/cometbft/cometbft/store"
	cmttypes "github.com/cometbft/cometbft/types"
	"github.com/cometbft/cometbft/version"
	"github.com/cosmos/gogoproto/proto"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec/strict"
)

// base is where CometBFT stood when a snapshot was taken: the file "consensus"
// beside it. Whoever has both goes on from there without the blocks before. It
// is public, and proven: the next header has the hash of the application, which
// follows from the snapshot, and more than two thirds of the validators that the
// snapshot's root of trust names signed that header. What is not proven is whose
// turn it is to propose; with a lie about that, a validator holds up itself.
type base struct {
	Height     int64    `json:"height"`     // of the snapshot's block
	Block      []byte   `json:"block"`      // that block
	Commit     []byte   `json:"commit"`     // the votes for it
	Next       []byte   `json:"next"`       // header of the block after it
	NextCommit []byte   `json:"nextCommit"` // the votes for that
	Validators [][]byte `json:"validators"` // of that block, the next, and the one after
	Params     []byte   `json:"params"`     // CometBFT's parameters of the next block
}

// errNotYet says that the engine has not made the block after a snapshot's.
var errNotYet = errors.New("the block after the snapshot is not there yet")

// readBase reads from CometBFT's stores what a start after a block needs.
func readBase(blocks sm.BlockStore, states sm.Store, height int64) ([]byte, error) {
	if blocks.Height() <= height {
		return nil, errNotYet
	}
	b := base{Height: height, Validators: make([][]byte, 3)}
	block, next := blocks.LoadBlock(height), blocks.LoadBlockMeta(height+1)
	commit, nextCommit := blocks.LoadBlockCommit(height), blocks.LoadSeenCommit(height+1)
	if block == nil || next == nil || commit == nil || nextCommit == nil {
		return nil, fmt.Errorf("block %d or the one after it is not in the store", height)
	}
	blockProto, err := block.ToProto()
	if err != nil {
		return nil, fmt.Errorf("block %d: %w", height, err)
	}
	params, err := states.LoadConsensusParams(height + 1)
	if err != nil {
		return nil, fmt.Errorf("parameters of block %d: %w", height+1, err)
	}
	paramsProto := params.ToProto()
	parts := []struct {
		to  *[]byte
		msg proto.Message
	}{{&b.Block, blockProto}, {&b.Commit, commit.ToProto()}, {&b.Next, next.Header.ToProto()}, {&b.NextCommit, nextCommit.ToProto()}, {&b.Params, &paramsProto}}
	for i := range b.Validators {
		set, err := states.LoadValidators(height + int64(i))
		if err != nil {
			return nil, fmt.Errorf("validators of block %d: %w", height+int64(i), err)
		}
		msg, err := set.ToProto()
		if err != nil {
			return nil, fmt.Errorf("validators of block %d: %w", height+int64(i), err)
		}
		parts = append(parts, struct {
			to  *[]byte
			msg proto.Message
		}{&b.Validators[i], msg})
	}
	for _, p := range parts {
		if *p.to, err = proto.Marshal(p.msg); err != nil {
			return nil, fmt.Errorf("encode where consensus stands: %w", err)
		}
	}
	return strict.Encode(b)
}

// heightOf is the height of a base, 0 if it is none.
func heightOf(raw []byte) int64 {
	var b base
	if err := strict.Decode(raw, &b, ledger.MaxConsensus); err != nil {
		return 0
	}
	return b.Height
}

// begin is a base that was checked.
type begin struct {
	state  sm.State
	block  *cmttypes.Block
	commit *cmttypes.Commit
}

// openBase checks a base against a state that is proven.
func openBase(raw []byte, chain string, s *ledger.State) (*begin, error) {
	var b base
	if err := strict.Decode(raw, &b, ledger.MaxConsensus); err != nil {
		return nil, fmt.Errorf("consensus: %w", err)
	}
	out, err := b.check(chain, s)
	if err != nil {
		return nil, fmt.Errorf("consensus at height %d does not fit the snapshot of height %d: %w", b.Height, s.Height(), err)
	}
	return out, nil
}

func (b base) check(chain string, s *ledger.State) (*begin, error) {
	if b.Height != s.Height() || b.Height < 1 || len(b.Validators) != 3 {
		return nil, errors.New("it is of another block")
	}
	var block cmtproto.Block
	var commits [2]cmtproto.Commit
	var header cmtproto.Header
	var params cmtproto.ConsensusParams
	var sets [3]cmtproto.ValidatorSet
	for _, p := range []struct {
		from []byte
		msg  proto.Message
	}{{b.Block, &block}, {b.Commit, &commits[0]}, {b.NextCommit, &commits[1]}, {b.Next, &header}, {b.Params, &params},
		{b.Validators[0], &sets[0]}, {b.Validators[1], &sets[1]}, {b.Validators[2], &sets[2]}} {
		if err := proto.Unmarshal(p.from, p.msg); err != nil {
			return nil, err
		}
	}
	blk, err := cmttypes.BlockFromProto(&block)
	if err != nil {
		return nil, fmt.Errorf("block: %w", err)
	}
	if err := blk.ValidateBasic(); err != nil {
		return nil, fmt.Errorf("block: %w", err)
	}
	next, err := cmttypes.HeaderFromProto(&header)
	if err != nil {
		return nil, fmt.Errorf("next header: %w", err)
	}
	var votes [2]*cmttypes.Commit
	for i := range votes {
		if votes[i], err = cmttypes.CommitFromProto(&commits[i]); err != nil {
			return nil, fmt.Errorf("votes: %w", err)
		}
	}
	var vals [3]*cmttypes.ValidatorSet
	for i := range vals {
		if vals[i], err = cmttypes.ValidatorSetFromProto(&sets[i]); err != nil {
			return nil, fmt.Errorf("validators: %w", err)
		}
	}
	if err := namedBy(s, vals); err != nil {
		return nil, err
	}
	parts, err := blk.MakePartSet(cmttypes.BlockPartSizeBytes)
	if err != nil {
		return nil, fmt.Errorf("block: %w", err)
	}
	id := cmttypes.BlockID{Hash: blk.Hash(), PartSetHeader: parts.Header()}
	hash, err := appHash(s)
	if err != nil {
		return nil, err
	}
	rules := cmttypes.ConsensusParamsFromProto(params)
	switch {
	case blk.ChainID != chain || next.ChainID != chain:
		return nil, fmt.Errorf("it is of chain %.80q, want %s", blk.ChainID, chain)
	case blk.Height != b.Height || next.Height != b.Height+1:
		return nil, fmt.Errorf("its blocks have heights %d and %d", blk.Height, next.Height)
	case !next.LastBlockID.Equals(id):
		return nil, errors.New("the next header does not follow its block")
	case !bytes.Equal(next.AppHash, hash):
		return nil, errors.New("the next header has another hash of the application")
	case !bytes.Equal(next.ValidatorsHash, vals[1].Hash()), !bytes.Equal(next.NextValidatorsHash, vals[2].Hash()), !bytes.Equal(blk.ValidatorsHash, vals[0].Hash()):
		return nil, errors.New("a header has other validators")
	case !bytes.Equal(next.ConsensusHash, rules.Hash()):
		return nil, errors.New("the next header has other parameters")
	}
	if err := vals[0].VerifyCommitLight(chain, id, b.Height, votes[0]); err != nil {
		return nil, fmt.Errorf("votes for its block: %w", err)
	}
	if !bytes.Equal(votes[1].BlockID.Hash, next.Hash()) {
		return nil, errors.New("the votes are for another header")
	}
	if err := vals[1].VerifyCommitLight(chain, votes[1].BlockID, b.Height+1, votes[1]); err != nil {
		return nil, fmt.Errorf("votes for the next header: %w", err)
	}
	state := sm.State{
		ChainID: chain, InitialHeight: 1,
		LastBlockHeight: b.Height, LastBlockID: id, LastBlockTime: blk.Time,
		LastValidators: vals[0], Validators: vals[1], NextValidators: vals[2], LastHeightValidatorsChanged: b.Height + 2,
		ConsensusParams: rules, LastHeightConsensusParamsChanged: b.Height + 1,
		LastResultsHash: next.LastResultsHash, AppHash: next.AppHash,
	}
	state.Version.Consensus, state.Version.Software = next.Version, version.TMCoreSemVer
	return &begin{state, blk, votes[0]}, nil
}

// namedBy wants the validators to be those of the root of trust. A change of
// them, in the snapshot's block or the one before, begins two blocks later: until
// then they are those of the root before.
func namedBy(s *ledger.State, vals [3]*cmttypes.ValidatorSet) error {
	now := s.Root()
	before := now
	if b := s.RootEnvelope(now.Version - 1); b != nil {
		var err error
		if before, _, err = ledger.DecodeRoot(b); err != nil {
			return fmt.Errorf("root of trust before: %w", err)
		}
	}
	for _, set := range vals[:2] {
		if named(set, now) != nil {
			if err := named(set, before); err != nil {
				return err
			}
		}
	}
	return named(vals[2], now)
}

// named wants a set to be that of a root of trust.
func named(set *cmttypes.ValidatorSet, root *ledger.Root) error {
	want := map[string]bool{}
	for _, v := range root.Log.Validators {
		want[v.Consensus] = true
	}
	for _, v := range set.Validators {
		key := base64.StdEncoding.EncodeToString(v.PubKey.Bytes())
		if !want[key] || v.VotingPower != 1 {
			return fmt.Errorf("validator %s is not one of those that root version %d names, %v", key, root.Version, slices.Sorted(maps.Keys(want)))
		}
		delete(want, key)
	}
	if len(want) > 0 {
		return fmt.Errorf("validators %v of root version %d are missing", slices.Sorted(maps.Keys(want)), root.Version)
	}
	return nil
}

// write fills CometBFT's empty stores.
func (g *begin) write(dir string) (err error) {
	cfg := settings(dir, Mesh{})
	blockDB, err := config.DefaultDBProvider(&config.DBContext{ID: "blockstore", Config: cfg})
	if err != nil {
		return fmt.Errorf("CometBFT's blocks: %w", err)
	}
	stateDB, err := config.DefaultDBProvider(&config.DBContext{ID: "state", Config: cfg})
	if err != nil {
		return errors.Join(fmt.Errorf("CometBFT's state: %w", err), blockDB.Close())
	}
	defer func() { err = errors.Join(err, blockDB.Close(), stateDB.Close()) }()
	defer func() {
		if r := recover(); r != nil { // so the stores say that they cannot write
			err = errors.Join(err, fmt.Errorf("write CometBFT's stores: %v", r))
		}
	}()
	blocks, states := store.NewBlockStore(blockDB), sm.NewStore(stateDB, sm.StoreOptions{DiscardABCIResponses: cfg.Storage.DiscardABCIResponses})
	if !blocks.IsEmpty() {
		return errors.New("CometBFT's stores are not empty")
	}
	if err := states.Bootstrap(g.state); err != nil {
		return fmt.Errorf("write CometBFT's state: %w", err)
	}
	parts, err := g.block.MakePartSet(cmttypes.BlockPartSizeBytes)
	if err != nil {
		return fmt.Errorf("block: %w", err)
	}
	blocks.SaveBlock(g.block, parts, g.commit)
	return nil
}
