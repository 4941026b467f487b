// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/zos-node/zos/ledger/tiles"
	"golang.org/x/mod/sumdb/tlog"
)

// Receipt says where an entry stands, and proves it.
type Receipt struct {
	Index  int64 `json:"index"`
	Size   int64 `json:"size"`
	TimeMs int64 `json:"timeMs"` // of its block; 0 if that was pruned meanwhile
	// Proof is a C2SP tlog-proof: the index, the hashes from the entry to the
	// root of the tree, and the cosigned checkpoint of that tree.
	Proof string `json:"proof"`
	// Entry is what stands there if somebody said the same before in other
	// bytes (other signatures); else it is empty.
	Entry string `json:"entry,omitempty"`
}

// proofHeader is the first line of a C2SP tlog-proof.
const proofHeader = "c2sp.org/tlog-proof@v1"

// prove makes the receipt of an entry from the files of a log.
func prove(ctx context.Context, dir tiles.Dir, r Receipt, submitted []byte) (Receipt, error) {
	from := dirSource{dir}
	signed, err := from.get(ctx, checkpointPath, tiles.MaxCheckpoint)
	if err != nil {
		return r, err
	}
	origin, _, _ := strings.Cut(string(signed), "\n")
	text, _, _ := strings.Cut(string(signed), "\n\n")
	tree, err := tiles.ParseTree(origin, text+"\n")
	if err != nil {
		return r, err
	}
	hashes := newProven(ctx, from, tree)
	proof, err := tlog.ProveRecord(tree.N, r.Index, hashes)
	if err != nil {
		return r, fmt.Errorf("prove entry %d: %w", r.Index, err)
	}
	leaf, err := hashes.ReadHashes([]int64{tlog.StoredHashIndex(0, r.Index)})
	if err != nil {
		return r, fmt.Errorf("prove entry %d: %w", r.Index, err)
	}
	if leaf[0] != tlog.RecordHash(submitted) {
		// The same was said in other bytes, which the receipt then has.
		err = eachEntry(ctx, from, tree, hashes, r.Index, r.Index+1, func(_ int64, raw []byte) error {
			r.Entry = string(raw)
			return nil
		})
		if errors.Is(err, ErrPruned) {
			return r, &Refused{Reason: fmt.Sprintf("is on the ledger as entry %d with other signatures; %v", r.Index, err), Index: r.Index}
		} else if err != nil {
			return r, err
		}
	}
	r.Proof = EntryProof{r.Index, tree, proof}.Format(signed)
	return r, nil
}

// Format writes the proof as a C2SP tlog-proof, with the signed checkpoint of
// its tree.
func (p EntryProof) Format(checkpoint []byte) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\nindex %d\n", proofHeader, p.Index)
	for _, h := range p.Proof {
		b.WriteString(h.String() + "\n")
	}
	return b.String() + "\n" + string(checkpoint)
}

// parseProof takes a C2SP tlog-proof apart.
func parseProof(s string) (index int64, proof tlog.RecordProof, signed []byte, err error) {
	head, checkpoint, ok := strings.Cut(s, "\n\n")
	lines := strings.Split(head, "\n")
	if !ok || len(lines) < 2 || len(lines) > 66 || lines[0] != proofHeader {
		return 0, nil, nil, errors.New("is no tlog-proof")
	}
	number, ok := strings.CutPrefix(lines[1], "index ")
	index, err = strconv.ParseInt(number, 10, 64)
	if !ok || err != nil || index < 0 {
		return 0, nil, nil, fmt.Errorf("has %q for the index", lines[1])
	}
	for _, line := range lines[2:] {
		b, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(b) != tlog.HashSize {
			return 0, nil, nil, fmt.Errorf("has %.60q for a hash", line)
		}
		proof = append(proof, tlog.Hash(b))
	}
	if again := (EntryProof{Index: index, Proof: proof}).Format([]byte(checkpoint)); again != s {
		return 0, nil, nil, errors.New("is not in its canonical spelling")
	}
	return index, proof, []byte(checkpoint), nil
}

// checkReceipt checks what a server says of an entry that was submitted.
func (c *Client) checkReceipt(ctx context.Context, from source, r Receipt, submitted []byte) error {
	index, proof, signed, err := parseProof(r.Proof)
	if err != nil {
		return forged(from, fmt.Errorf("the receipt %w", err))
	}
	cp, _, err := openCheckpoint(c.known(from).chain, signed)
	if err != nil {
		// There may be a newer root of trust.
		chain, err := c.follow(ctx, from)
		if err != nil {
			return err
		}
		if cp, _, err = openCheckpoint(chain, signed); err != nil {
			c.forget(from)
			return forged(from, fmt.Errorf("the receipt: %w", err))
		}
	}
	entry := submitted
	if r.Entry != "" {
		there, err := Decode([]byte(r.Entry))
		if err != nil {
			return forged(from, fmt.Errorf("the receipt: %w", err))
		}
		mine, err := Decode(submitted)
		if err != nil {
			return err
		}
		if there.id() != mine.id() {
			return forged(from, errors.New("the receipt is for an entry that says something else"))
		}
		entry = []byte(r.Entry)
	}
	if index != r.Index {
		return forged(from, fmt.Errorf("the receipt says index %d and proves %d", r.Index, index))
	}
	return EntryProof{index, cp.Tree, proof}.Check(entry)
}
