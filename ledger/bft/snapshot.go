// SPDX-License-Identifier: Apache-2.0

package bft

import (
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

// writeSnapshot publishes the snapshot that waits, beside the ordering of
// entries. One that cannot be written is no reason to stop: who starts late
// folds more.
func (e *Engine) writeSnapshot() {
	s := e.app.snapshot()
	if s == nil {
		return
	}
	start := time.Now()
	b := s.Snapshot()
	if err := tiles.WriteFileSync(filepath.Join(string(LogDir(e.dir)), "snapshot"), b, 0o644); err != nil {
		e.log.Error("write the snapshot", "part", "ledger", "err", err)
		return
	}
	e.log.Info("wrote a snapshot", "part", "ledger", "size", s.Size(), "bytes", len(b), "took", time.Since(start))
}
