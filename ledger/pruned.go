// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// Pruned says that a log has not all of its bundles any more, which somebody
// reads who asks for one. Its hash tiles are all there, so whatever an archive
// gives can still be proven; nothing of this file is believed.
type Pruned struct {
	Before   int64    `json:"before"`   // entries from 256 to before this are gone
	Archives []string `json:"archives"` // URLs of mirrors that have them
}

// Error says what is gone and who has it.
func (p *Pruned) Error() string {
	where := "its operator knows who keeps them"
	if len(p.Archives) > 0 {
		where = "they are at " + strings.Join(p.Archives, ", ")
	}
	return fmt.Sprintf("the bundles of entries %d to %d were pruned, their hashes are there; %s", tiles.Width, p.Before-1, where)
}

// Is makes it an ErrPruned.
func (p *Pruned) Is(target error) bool { return target == ErrPruned }

// Places of what is no part of C2SP's format.
const (
	prunedPath    = "pruned"
	consensusPath = "consensus"
	maxPruned     = 64 << 10
	maxArchives   = 16
)

// Prune removes the bundles before an entry, after it wrote down that it did.
// The first bundle stays: the root of trust and the begin of time are in it.
// Whoever prunes has a snapshot of at least that size.
func Prune(dir tiles.Dir, before int64, archives []string) (removed int, err error) {
	before -= before % tiles.Width
	if before <= tiles.Width {
		return 0, nil
	}
	if archives == nil {
		archives = []string{}
	}
	b, err := strict.Encode(Pruned{before, archives})
	if err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	if err := tiles.WriteFileSync(filepath.Join(string(dir), prunedPath), b, 0o644); err != nil {
		return 0, fmt.Errorf("prune: %w", err)
	}
	return dir.Prune(before)
}

// why says of a bundle that is not there whether it was pruned.
func why(ctx context.Context, from source, bundle int64, missing error) error {
	if bundle < 1 {
		return missing
	}
	p, err := pruned(ctx, from)
	if err != nil || p.Before <= bundle*tiles.Width {
		return missing
	}
	return fmt.Errorf("%s: %w", from, p)
}

// pruned reads what a source says of itself.
func pruned(ctx context.Context, from source) (*Pruned, error) {
	b, err := from.get(ctx, prunedPath, maxPruned)
	if err != nil {
		return nil, err
	}
	var p Pruned
	if err := strict.Decode(b, &p, maxPruned); err != nil {
		return nil, forged(from, err)
	}
	if p.Before < 0 || len(p.Archives) > maxArchives {
		return nil, forged(from, fmt.Errorf("%s: names %d archives, or a negative entry", prunedPath, len(p.Archives)))
	}
	return &p, nil
}

// bundleOf is the number of the bundle at a path, -1 if it is none.
func bundleOf(path string) int64 {
	rest, ok := strings.CutPrefix(path, "tile/entries/")
	if !ok {
		return -1
	}
	t, err := tlog.ParseTilePath("tile/8/0/" + rest)
	if err != nil {
		return -1
	}
	return t.N
}
