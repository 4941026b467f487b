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

// unsigned is how many blocks after the others' newest one a restored validator
// leaves to them. Whoever signs for block h has seen h-1 decided, and to decide it
// needs votes of others for it, who had seen h-2 decided. So a validator that is
// lost is at most one decided block ahead of the one that is furthest of the rest,
// and may have signed the one after that: two would do, if that one was asked and
// is as far as it ever was. The rest is for a server that is a few blocks behind
// just now. It costs little: the others do without this vote for as many blocks,
// which entries and leases soon make.
const unsigned = 20

// signedUpTo restores what a validator signed last. A backup knows that only
// for the time when it was made; what came after it is bounded by the newest
// block that the others have. So nothing up to unsigned blocks after that is signed,
// in any round.
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
	if height > 0 && last.Height <= height+unsigned {
		const precommit = 3
		last = privval.FilePVLastSignState{Height: height + unsigned, Round: math.MaxInt32, Step: precommit}
		if b, err = cmtjson.MarshalIndent(last, "", "  "); err != nil {
			return fmt.Errorf("restore: %s: %w", path, err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "comet", "data"), folderMode("comet")); err != nil {
		return fmt.Errorf("restore: %w", err)
	}
	return tiles.WriteFileSync(filepath.Join(dir, path), b, 0o600)
}
