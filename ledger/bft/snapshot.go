// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// snapshotSize is how many entries the newest snapshot of a log has, 0 if
// there is none that can be read: it is written anew then.
func snapshotSize(log tiles.Dir) int64 {
	b, err := os.ReadFile(filepath.Join(string(log), "snapshot"))
	if err != nil {
		return 0
	}
	s, err := ledger.OpenSnapshot(b)
	if err != nil {
		return 0
	}
	return s.Size()
}

// snapshots is the loop of what may take long: it holds up neither the ordering
// of entries nor their publication.
func (e *Engine) snapshots() {
	again := time.NewTicker(repeat)
	defer again.Stop()
	for {
		select {
		case <-again.C:
			e.wanted()
			e.writeSnapshot()
			e.app.due()
		case <-e.stop:
			return
		}
	}
}

// wantFile is made by who wants a snapshot of now, such as Backup. It goes
// when the snapshot is there.
func wantFile(dir string) string { return filepath.Join(dir, "want-snapshot") }

// wanted sees whether somebody wants a snapshot.
func (e *Engine) wanted() {
	if _, err := os.Stat(wantFile(e.dir)); err != nil {
		return
	}
	e.app.mu.Lock()
	defer e.app.mu.Unlock()
	a := e.app
	switch size := a.state.Size(); {
	case a.snap != nil || a.state.Height() == 0: // one is on its way, or there is nothing
	case a.snapped < size || !e.says(a.state.Height()):
		a.snap, a.snapped, e.wish = a.state.Clone(), size, size
	default:
		e.granted()
	}
}

// says tells whether the consensus file is of a height.
func (e *Engine) says(height int64) bool {
	b, err := os.ReadFile(filepath.Join(string(LogDir(e.dir)), "consensus"))
	return err == nil && heightOf(b) == height
}

func (e *Engine) granted() {
	if err := os.Remove(wantFile(e.dir)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		e.log.Error("a snapshot was wanted and is there, but the wish cannot be removed", "part", "ledger", "err", err)
	}
}

// writeSnapshot publishes the snapshot that waits, beside the ordering of
// entries, and where consensus stood then. One that cannot be written is no
// reason to stop: who starts late folds more.
func (e *Engine) writeSnapshot() {
	s := e.app.snapshot()
	if s == nil {
		return
	}
	start := time.Now()
	// No snapshot on the disk is of more than the checkpoint there.
	if err := e.writer.Settle(); err != nil {
		e.fail(fmt.Errorf("publish a checkpoint: %w", err))
		return
	}
	consensus, err := readBase(e.blocks, e.states, s.Height())
	if errors.Is(err, errNotYet) {
		e.app.later(s)
		return
	}
	if err == nil {
		_, err = openBase(consensus, e.node.GenesisDoc().ChainID, s)
	}
	put := func(name string, b []byte) error {
		return tiles.WriteFileSync(filepath.Join(string(LogDir(e.dir)), name), b, 0o644)
	}
	if err != nil {
		e.log.Warn("no validator can start from this snapshot, only readers", "part", "ledger", "size", s.Size(), "err", err)
	} else if err := put("consensus", consensus); err != nil {
		e.log.Error("write where consensus stands", "part", "ledger", "err", err)
		return
	}
	b := s.Snapshot()
	if err := put("snapshot", b); err != nil {
		e.log.Error("write the snapshot", "part", "ledger", "err", err)
		return
	}
	e.log.Info("wrote a snapshot", "part", "ledger", "size", s.Size(), "bytes", len(b), "took", time.Since(start))
	if err != nil {
		return
	}
	if e.wish > 0 && s.Size() >= e.wish {
		e.wish = 0
		e.granted()
	}
	if err := e.prune(s.Size()); err != nil {
		e.log.Error("prune", "part", "ledger", "err", err)
	}
}

// prune removes the bundles that neither Keep nor a start from the snapshot
// needs, and lets CometBFT remove the blocks that they came in.
func (e *Engine) prune(snapshot int64) error {
	if e.keep == 0 {
		return nil
	}
	e.app.mu.RLock()
	size := e.app.state.Size()
	e.app.mu.RUnlock()
	before := min(snapshot-1, size-e.keep)
	if before -= before % tiles.Width; before <= tiles.Width {
		return nil
	}
	height, err := heightAt(LogDir(e.dir), before, snapshot)
	if err != nil {
		return err
	}
	removed, err := ledger.Prune(LogDir(e.dir), before, e.archives)
	if err != nil {
		return err
	}
	e.app.retain.Store(height)
	if removed > 0 {
		e.log.Info("pruned", "part", "ledger", "before", before, "bundles", removed, "height", height)
	}
	return nil
}

// heightAt is the height of the block that an entry is in.
func heightAt(dir tiles.Dir, index, size int64) (int64, error) {
	b, err := blockAt(dir, index, size)
	if err != nil {
		return 0, fmt.Errorf("block of entry %d: %w", index, err)
	}
	return b.Height, nil
}

// snapshot gives the state whose checkpoint is there, once.
func (a *app) snapshot() *ledger.State {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.snap
	if s == nil || s.Size() > a.durable {
		return nil
	}
	a.snap = nil
	return s
}

// due takes a snapshot of a state that has grown while the one before was being
// written: after a burst of entries there may be no block for long that would.
func (a *app) due() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if size := a.state.Size(); a.snap == nil && size-a.snapped >= a.every {
		a.snap, a.snapped = a.state.Clone(), size
	}
}

// later puts a snapshot back that cannot be written yet, unless a newer one has
// come meanwhile.
func (a *app) later(s *ledger.State) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.snap == nil {
		a.snap = s
	}
}
