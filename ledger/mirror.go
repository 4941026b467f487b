// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// Mirror is a copy of a log that was checked: no file of it was taken from
// anybody. Its client checks everything that a client checks, and the files
// are computed from the entries, so they are the same as everywhere. Only the
// checkpoint is taken over, whose signatures say what it is worth.
type Mirror struct {
	dir    tiles.Dir
	client *Client
	writer *tiles.Writer
	every  int64    // entries between two snapshots
	taken  [][]byte // new entries that are not written yet
	broken error    // of a write: a tiles.Writer is of no use after one
	shown  int64    // size of the checkpoint that readers have

	mu      sync.Mutex
	snapped int64
	last    time.Time // when a ledger was last found in order
	err     error     // of the last Sync
	now     func() time.Time
}

// ErrCopy says that what a mirror has on its own disk is not to be believed: it
// is damaged, or it is of another ledger than the root of trust says. The error
// has more. No ledger was asked.
var ErrCopy = errors.New("the mirror's own copy does not hold")

// OpenMirror continues the copy in a folder, which it checks first, or begins
// one. snapshotEvery is the number of entries between two snapshots.
func OpenMirror(ctx context.Context, dir string, snapshotEvery int64, cfg ClientConfig) (*Mirror, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("mirror: %w", err)
	}
	if cfg.StateFile != "" || cfg.KeepEntries || cfg.Snapshot {
		return nil, errors.New("mirror: remembers by its copy, which has every entry")
	}
	c, err := OpenClient(cfg)
	if err != nil {
		return nil, err
	}
	m := &Mirror{dir: tiles.Dir(dir), client: c, writer: tiles.NewWriter(tiles.Dir(dir)), every: snapshotEvery, now: time.Now}
	c.take = func(_ int64, raw []byte) error { // out of the copy itself
		m.writer.Restore(raw)
		return nil
	}
	defer func() { c.take = m.take }()
	if _, err := os.Stat(filepath.Join(dir, checkpointPath)); errors.Is(err, fs.ErrNotExist) {
		return m, nil
	}
	own, err := openSource(dir, nil, nil)
	if err != nil {
		return nil, err
	}
	h := c.lookAt(ctx, own)
	if h.err != nil {
		return nil, ofCopy(ctx, h.err)
	}
	next, err := c.advance(ctx, h, wholly)
	if err != nil {
		return nil, ofCopy(ctx, err)
	}
	m.snapped, m.shown = next.state.Size(), next.checkpoint.N
	return m, c.accept(next)
}

// ofCopy is the error of a copy, an ErrCopy if it was read and does not hold.
func ofCopy(ctx context.Context, err error) error {
	if ctx.Err() != nil || errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("mirror: its own copy: %w", err)
	}
	return fmt.Errorf("%w: %w", ErrCopy, err)
}

// Sync copies what is new.
func (m *Mirror) Sync(ctx context.Context) (err error) {
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.err = err; err == nil {
			m.last = m.now()
		}
	}()
	// What the client did not come to believe is taken again.
	fresh := m.client.Checkpoint().FreshSec
	m.taken = m.taken[:max(0, min(int64(len(m.taken)), m.client.Checkpoint().N-m.writer.Head().N))]
	err = m.client.Sync(ctx)
	if m.broken != nil {
		return m.broken
	}
	if err != nil {
		return err
	}
	m.client.mu.Lock()
	v := m.client.view
	m.client.mu.Unlock()
	if v.checkpoint.N == m.shown {
		if v.checkpoint.FreshSec <= fresh {
			return nil
		}
		// Signed anew: nothing else has come.
		return m.writer.Publish(m.shown, v.checkpoint.Note)
	}
	if err := m.flush(); err != nil {
		return err
	}
	for version := int64(1); v.state.RootEnvelope(version) != nil; version++ {
		if _, err := os.Stat(filepath.Join(string(m.dir), rootPath(version))); err == nil {
			continue
		}
		if err := m.writer.WriteRoot(version, v.state.RootEnvelope(version)); err != nil {
			return err
		}
	}
	if head := m.writer.Head(); head != v.checkpoint.Tree {
		return fmt.Errorf("mirror: its files have root %s at size %d, the checkpoint has %s at %d", head.Hash, head.N, v.checkpoint.Hash, v.checkpoint.N)
	}
	if err := m.writer.Publish(v.checkpoint.N, v.checkpoint.Note); err != nil {
		return err
	}
	m.shown = v.checkpoint.N
	if v.checkpoint.N-m.snapped < m.every {
		return nil
	}
	m.snapped = v.checkpoint.N
	return tiles.WriteFileSync(filepath.Join(string(m.dir), snapshotPath), v.state.Snapshot(), 0o644)
}

// together is how many new entries a mirror has in memory before it writes them:
// the log may be larger than that.
const together = 1024

// take gets each new entry, which is proven to stand in the tree of the checkpoint
// that is being read. What was written already, by a Sync that ended before that
// tree was complete, is the same: what is not, the next look at the head finds.
func (m *Mirror) take(index int64, raw []byte) error {
	if m.broken != nil {
		return m.broken
	}
	if index < m.writer.Head().N+int64(len(m.taken)) {
		return nil
	}
	if m.taken = append(m.taken, bytes.Clone(raw)); len(m.taken) < together {
		return nil
	}
	return m.flush()
}

func (m *Mirror) flush() error {
	if m.broken == nil && len(m.taken) > 0 {
		if err := m.writer.Append(m.taken); err != nil {
			m.broken = fmt.Errorf("mirror: %w; what readers see is as before; make room, and start it again", err)
		}
	}
	m.taken = nil
	return m.broken
}

// Client is the mirror's own.
func (m *Mirror) Client() *Client { return m.client }

// staleMirror is how long a mirror may find no ledger in order before it says
// that it is not healthy.
const staleMirror = time.Minute

// Health is nil while the mirror keeps up with a log that goes on, as far as
// this computer's clock can tell (Client.Frozen).
func (m *Mirror) Health() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	now := m.now()
	if age := now.Sub(m.last); age > staleMirror {
		return fmt.Errorf("nothing was copied for %s: %w", age.Round(time.Second), errors.Join(m.err, errors.New("no ledger was in order")))
	}
	return m.client.Frozen(now)
}

// Submit implements Submitter, by saying who takes entries.
func (m *Mirror) Submit(context.Context, []byte) (Receipt, error) {
	return Receipt{}, &Busy{Reason: "this is a mirror, it takes no entries; submit to a validator", After: time.Hour}
}
