// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// folded is what fold comes to.
type folded struct {
	state   *ledger.State
	durable int64 // size of the checkpoint, 0 if there is none yet
	snapped int64 // size of the snapshot that it started from, 0 if there is none
}

// fold makes the state of a folder's log and lets the writer continue it. It
// starts from the folder's own snapshot, where there is one that the checkpoint
// proves, and folds what follows.
func fold(ctx context.Context, dir string, root []byte, w *tiles.Writer, log *slog.Logger) (f folded, err error) {
	has := func(name string) (bool, error) {
		_, err := os.Stat(filepath.Join(string(LogDir(dir)), name))
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	}
	published, err := has("checkpoint")
	if err != nil {
		return f, fmt.Errorf("read the log: %w", err)
	}
	seeded, err := has("consensus")
	if err != nil {
		return f, fmt.Errorf("read the log: %w", err)
	}
	switch {
	case published:
		begin := func(s *ledger.State) error {
			f.snapped = s.Size()
			return w.Resume(s.Tree())
		}
		f.state, err = ledger.Replay(ctx, dir, root, false, begin, w.Restore)
		if err != nil && !errors.Is(err, ledger.ErrPruned) {
			// The snapshot is damaged, or what follows it is: the whole log says.
			log.Warn("cannot start from the snapshot; the whole log is folded", "part", "ledger", "err", err)
			*w = *tiles.NewWriter(LogDir(dir))
			f.snapped = 0 // it is written anew
			f.state, err = ledger.Replay(ctx, dir, root, true, nil, w.Restore)
		}
		if err != nil {
			return f, fmt.Errorf("read the log in %s: %w", LogDir(dir), err)
		}
		f.durable = f.state.Size()
		return f, nil
	case seeded:
		// Join or Restore checked it, and made root.json after it.
		b, err := os.ReadFile(filepath.Join(string(LogDir(dir)), "snapshot"))
		if err != nil {
			return f, fmt.Errorf("begin from the snapshot: %w", err)
		}
		if f.state, err = ledger.OpenSnapshot(b); err != nil {
			return f, fmt.Errorf("begin from the snapshot: %w", err)
		}
		if err := w.Resume(f.state.Tree()); err != nil {
			return f, fmt.Errorf("begin from the snapshot: %w", err)
		}
		f.snapped = f.state.Size()
		return f, nil
	}
	if f.state, err = beginning(dir, root, w); err != nil {
		return f, fmt.Errorf("begin the log in %s: %w", LogDir(dir), err)
	}
	return f, nil
}
