// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// remembered is the state file: what a client has seen, signatures and all,
// so that a restart is no chance to show it something older.
type remembered struct {
	Root       []byte `json:"root"`       // newest root of trust, envelope
	Checkpoint []byte `json:"checkpoint"` // signed note
}

// load takes the state file over, if there is one. A file that does not fit
// the root of trust is an error, never a fresh start: whoever can damage it
// could otherwise roll the client back.
func (c *Client) load() error {
	if c.cfg.StateFile == "" {
		return nil
	}
	b, err := os.ReadFile(c.cfg.StateFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return fmt.Errorf("state file: %w", err)
	}
	hint := fmt.Sprintf("state file %s: %%w; if you know why, remove it and the client starts afresh", c.cfg.StateFile)
	var r remembered
	if err := strict.Decode(b, &r, 4*MaxEntry); err != nil {
		return fmt.Errorf(hint, err)
	}
	root, _, err := DecodeRoot(r.Root)
	if err != nil {
		return fmt.Errorf(hint, err)
	}
	if root.Log.Origin != c.trust.root.Log.Origin {
		return fmt.Errorf(hint, fmt.Errorf("is of ledger %s, want %s", root.Log.Origin, c.trust.root.Log.Origin))
	}
	cp, err := root.Checkpoints().Open(r.Checkpoint)
	if err != nil {
		return fmt.Errorf(hint, err)
	}
	if root.Version > c.trust.root.Version {
		c.trust = trust{root, r.Root}
	}
	c.floor, c.since = cp.Tree, time.Unix(cp.TimeSec, 0)
	return nil
}

// ErrState says that the state file cannot be kept: nothing newer is believed,
// since what was believed must not be forgotten. It is no fault of a ledger's.
var ErrState = errors.New("state file cannot be kept")

// save replaces the state file as a whole.
func (c *Client) save(t trust, cp tiles.Checkpoint) error {
	if c.cfg.StateFile == "" {
		return nil
	}
	b, err := strict.Encode(remembered{t.envelope, cp.Note})
	if err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	if err := tiles.WriteFileSync(c.cfg.StateFile, b, 0o600); err != nil {
		return fmt.Errorf("%w: %w", ErrState, err)
	}
	return nil
}
