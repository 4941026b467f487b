// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"fmt"
	"math"
	"os"
	"path/filepath"

	cmtjson "github.com/cometbft/cometbft/libs/json"
	"github.com/cometbft/cometbft/privval"

	"github.com/zos-node/zos/ledger/tiles"
)

// signedUpTo restores what a validator signed last. A backup knows that only
// for the time when it was made; what came after it is bounded by the newest
// block that the others have: nobody can have signed beyond the block after
// that. So that one is not signed either, in any round. The others do without
// this vote, once.
func signedUpTo(temp, dir string, height int64) error {
	path := filepath.Join("comet", "data", "signed.json")
	b, err := os.ReadFile(filepath.Join(temp, path))
	if err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	var last privval.FilePVLastSignState
	if err := cmtjson.Unmarshal(b, &last); err != nil {
		return fmt.Errorf("restore: %s: %w", path, err)
	}
	if height > 0 && last.Height <= height+1 {
		const precommit = 3
		last = privval.FilePVLastSignState{Height: height + 1, Round: math.MaxInt32, Step: precommit}
		if b, err = cmtjson.MarshalIndent(last, "", "  "); err != nil {
			return fmt.Errorf("restore: %s: %w", path, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "comet", "data"), folderMode("comet")); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return tiles.WriteFileSync(filepath.Join(dir, path), b, 0o600)
}
