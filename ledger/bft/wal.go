// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/cometbft/cometbft/consensus"
	cmtcons "github.com/cometbft/cometbft/proto/tendermint/consensus"
	cmttime "github.com/cometbft/cometbft/types/time"
	"github.com/cosmos/gogoproto/proto"

	"github.com/zos-node/zos/ledger/tiles"
)

// mendWAL makes the write-ahead log one that a validator can go on from, before
// CometBFT reads it.
//
// CometBFT replays what stands after the mark that ends the last block. A power
// cut between the fsync of a block and that of the mark leaves the block without
// it, and so does fetching blocks from peers. Then CometBFT replays nothing: the
// validator has forgotten what it voted for in the block it is at, but not that
// it did, and may neither repeat its votes nor cast others. With enough of them
// away, or alone, the ledger stands still for ever. So the mark of the last
// block, height, is put where it belongs.
//
// What a cut tore at the end is removed, which CometBFT does too, but without an
// fsync, and not when it comes from fetching blocks.
func mendWAL(head string, height int64) error {
	b, err := os.ReadFile(head)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // CometBFT makes it
	} else if err != nil {
		return fmt.Errorf("read the write-ahead log: %w", err)
	}
	records, whole := cutWAL(b)
	marked, err := isMarked(head, records, height)
	if err != nil {
		return err
	}
	if whole && marked {
		return nil
	}
	if !marked {
		mark, err := endRecord(height)
		if err != nil {
			return err
		}
		at := slices.IndexFunc(records, func(r record) bool { return r.height > height })
		if at < 0 {
			at = len(records)
		}
		records = slices.Insert(records, at, mark)
	}
	var out []byte
	for _, r := range records {
		out = append(out, r.raw...)
	}
	if err := tiles.WriteFileSync(head, out, 0o600); err != nil {
		return fmt.Errorf("mend the write-ahead log: %w", err)
	}
	return nil
}

// isMarked says whether the end of a block stands in the log: in its newest
// file, or in the one before that. Block 0 is marked by CometBFT itself.
func isMarked(head string, records []record, height int64) (bool, error) {
	ends := func(r record) bool { return r.ends && r.height == height }
	if len(records) == 0 && height == 0 || slices.ContainsFunc(records, ends) {
		return true, nil
	}
	older, err := filepath.Glob(head + ".[0-9][0-9][0-9]")
	if err != nil || len(older) == 0 {
		return false, err
	}
	b, err := os.ReadFile(slices.Max(older))
	if err != nil {
		return false, fmt.Errorf("read the write-ahead log: %w", err)
	}
	before, _ := cutWAL(b)
	return slices.ContainsFunc(before, ends), nil
}

// record is one message of the log, as CometBFT writes it: CRC-32C and length of
// what follows, 4 bytes each, big-endian, and a TimedWALMessage.
type record struct {
	raw    []byte
	height int64 // of the block that it is about, 0 if it says nothing of that
	ends   bool  // it is the mark
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// cutWAL cuts a log into its records, up to the first one that is damaged.
func cutWAL(b []byte) (all []record, whole bool) {
	const head = 8
	for len(b) > 0 {
		if len(b) < head {
			return all, false
		}
		sum, n := binary.BigEndian.Uint32(b), int64(binary.BigEndian.Uint32(b[4:]))
		if int64(len(b)-head) < n || crc32.Checksum(b[head:head+n], castagnoli) != sum {
			return all, false
		}
		var m cmtcons.TimedWALMessage
		if err := proto.Unmarshal(b[head:head+n], &m); err != nil || m.Msg == nil || m.Msg.Sum == nil {
			return all, false
		}
		r := record{raw: b[:head+n]}
		switch sum := m.Msg.Sum.(type) {
		case *cmtcons.WALMessage_EndHeight:
			r.height, r.ends = sum.EndHeight.Height, true
		case *cmtcons.WALMessage_EventDataRoundState:
			r.height = sum.EventDataRoundState.Height
		case *cmtcons.WALMessage_TimeoutInfo:
			r.height = sum.TimeoutInfo.Height
		case *cmtcons.WALMessage_MsgInfo:
			switch msg := sum.MsgInfo.Msg.Sum.(type) {
			case *cmtcons.Message_Proposal:
				r.height = msg.Proposal.Proposal.Height
			case *cmtcons.Message_BlockPart:
				r.height = msg.BlockPart.Height
			case *cmtcons.Message_Vote:
				if msg.Vote.Vote != nil {
					r.height = msg.Vote.Vote.Height
				}
			}
		}
		all, b = append(all, r), b[head+n:]
	}
	return all, true
}

// endRecord is the mark that ends a block.
func endRecord(height int64) (record, error) {
	var b bytes.Buffer
	err := consensus.NewWALEncoder(&b).Encode(&consensus.TimedWALMessage{Time: cmttime.Now(), Msg: consensus.EndHeightMessage{Height: height}})
	if err != nil {
		return record{}, fmt.Errorf("end of block %d: %w", height, err)
	}
	return record{b.Bytes(), height, true}, nil
}
