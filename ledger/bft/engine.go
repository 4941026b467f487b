// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cometbft/cometbft/node"
	sm "github.com/cometbft/cometbft/state"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// Engine is a running ledger server's heart. It implements ledger.Submitter.
type Engine struct {
	app     *app
	writer  *tiles.Writer
	node    *node.Node
	log     *slog.Logger
	stop    chan struct{} // closed by Close
	failed  chan struct{} // closed when the engine cannot go on
	failure chan error    // holds the reason, at most one
	loops   sync.WaitGroup
	mesh    *reactor
	poke    chan struct{} // there is something to tell
	heard   chan struct{} // there may be something to publish
	came    chan struct{} // there may be something in the mempool
	dir     string
	peers   atomic.Pointer[Mesh]
	present atomic.Pointer[presence]
	parted  atomic.Bool // from a peer, whose routines may still run

	blocks   sm.BlockStore
	states   sm.Store
	keep     int64
	archives []string
	reserve  int64
	quotas   *ledger.Quotas
	wait     time.Duration // of a block that has no entries yet
	wish     int64         // of snapshots alone: the size of the snapshot that was wanted
}

// presence is which validators of the present root are there.
type presence struct {
	names, missing []string
	quorum         int
}

// Options change how an engine runs; the zero value is the usual one.
type Options struct {
	Log *slog.Logger
	// SnapshotEvery is the number of entries between two snapshots of the
	// state; 0 is 10,000.
	SnapshotEvery int64
	// Keep is how many of the newest entries keep their bundles, and their
	// blocks for peers that were away; older ones go once a snapshot covers
	// them. 0 keeps all. Archives are the mirrors that have what is gone.
	Keep     int64
	Archives []string
	// Reserve is how many bytes of the disk stay free: with less, entries are
	// refused (ledger.Busy). 0 is 256 MiB, -1 none.
	Reserve int64
	// Quota is what each key may have ordered; the zero Quota is no limit.
	Quota ledger.Quota

	step func(step string) // tests: called before each kind of write
	now  func() time.Time
	mute bool          // tests: tell nobody what was signed
	wait time.Duration // tests: instead of proposeWait
	anew time.Duration // tests: instead of staysFresh
}

// LogDir is the folder of static files below a ledger's folder.
func LogDir(dir string) tiles.Dir { return tiles.Dir(filepath.Join(dir, "log")) }

// Open starts the engine on a folder that Init made. It folds the whole log
// and lets CometBFT finish what a crash interrupted.
func Open(ctx context.Context, dir string, o Options) (*Engine, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.now == nil {
		o.now = time.Now
	}
	if o.SnapshotEvery == 0 {
		o.SnapshotEvery = 10_000
	}
	root, err := os.ReadFile(filepath.Join(dir, "root.json"))
	if err != nil {
		return nil, fmt.Errorf("%s is no ledger folder; make one with `zos ledger init`: %w", dir, err)
	}
	mesh, err := LoadMesh(dir)
	if err != nil {
		return nil, err
	}
	if err := sweep(dir); err != nil {
		return nil, err
	}
	keys, err := loadKeys(dir)
	if err != nil {
		return nil, err
	}
	first, _, err := ledger.DecodeRoot(root)
	if err != nil {
		return nil, err
	}
	writer := tiles.NewWriter(LogDir(dir))
	start := time.Now()
	begun, err := fold(ctx, dir, root, writer, o.Log)
	if err != nil {
		return nil, err
	}
	state, durable := begun.state, begun.durable
	o.Log.Info("folded the log", "part", "ledger", "size", state.Size(), "took", time.Since(start))
	if o.step != nil {
		writer.Step = o.step
	}
	e := &Engine{
		log: o.Log, dir: dir, writer: writer, stop: make(chan struct{}), failed: make(chan struct{}), failure: make(chan error, 1), poke: make(chan struct{}, 1),
		came: make(chan struct{}, 1), heard: make(chan struct{}, 1), quotas: ledger.NewQuotas(o.Quota),
	}
	e.peers.Store(&mesh)
	cache := ledger.NewCache()
	state.UseCache(cache)
	e.app = &app{
		writer: writer, cosign: newCollector(keys, first.Log.Origin), cache: cache, now: o.now, fail: e.fail, admit: e.admit, tell: e.wake, log: o.Log, state: state, durable: durable,
		news: make(chan struct{}), waiting: map[txID][]chan result{}, every: o.SnapshotEvery, snapped: begun.snapped,
	}
	if e.app.fresh = o.anew; e.app.fresh == 0 {
		e.app.fresh = staysFresh
	}
	e.keep, e.archives, e.reserve = o.Keep, o.Archives, o.Reserve
	if e.reserve == 0 {
		e.reserve = reserve
	}
	if e.wait = o.wait; e.wait == 0 {
		e.wait = proposeWait
	}
	if durable == 0 { // nothing is published yet: this tree wants a checkpoint
		e.app.pending, e.app.waitingMs = []pending{{writer.Head(), state.Root().Checkpoints()}}, o.now().UnixMilli()
	}
	ours, err := e.app.cosign.sign(writer.Head())
	if err != nil {
		return nil, err
	}
	e.app.cosign.say(ours, o.now())
	e.mesh = newReactor(e.hear, e.statement)
	e.mesh.mute = o.mute
	e.look()
	if err := e.start(dir, mesh); err != nil {
		return nil, err
	}
	return e, nil
}

// fail remembers the first reason why the engine cannot go on.
func (e *Engine) fail(err error) {
	select {
	case e.failure <- err:
		close(e.failed)
	default:
	}
}

// Failed is closed when the engine cannot go on; Health then says why.
func (e *Engine) Failed() <-chan struct{} { return e.failed }

// Health is nil while entries can be ordered and published.
func (e *Engine) Health() error {
	select {
	case err := <-e.failure:
		e.failure <- err
		return err
	default:
	}
	if err := e.room(); err != nil {
		return err
	}
	return e.quorum()
}

// tick makes blocks that are due although nobody says anything.
func (e *Engine) tick() {
	for {
		e.app.mu.RLock()
		due, news := e.app.state.DueMs(), e.app.news
		e.app.mu.RUnlock()
		wait := time.Hour
		if due >= 0 {
			wait = time.Duration(due-e.app.now().UnixMilli())*time.Millisecond + e.turn()
		}
		if wait <= 0 {
			if err := e.push(tickTx(e.app.now().UnixMilli())); err != nil {
				e.log.Warn("could not ask for a block that is due", "part", "ledger", "err", err)
			}
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-news:
		case <-e.stop:
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// NewestBlock implements ledger.Orderer. It is more than the state's height: not
// every block has entries.
func (e *Engine) NewestBlock() int64 { return e.blocks.Height() }

// State is a copy of the present state.
func (e *Engine) State() *ledger.State {
	e.app.mu.RLock()
	defer e.app.mu.RUnlock()
	return e.app.state.Clone()
}

// Close stops the engine and closes its files.
func (e *Engine) Close() error {
	close(e.stop)
	e.loops.Wait()
	if len(e.peers.Load().Peers) > 0 || e.parted.Load() {
		// CometBFT closes its databases while its routines for peers still read
		// them, and panics. So these end first.
		if err := e.node.Switch().Stop(); err != nil {
			return fmt.Errorf("leave the mesh: %w", err)
		}
		time.Sleep(5 * peerQuery)
	}
	if err := e.node.Stop(); err != nil {
		return fmt.Errorf("stop consensus: %w", err)
	}
	e.node.Wait()
	e.app.mu.Lock()
	defer e.app.mu.Unlock()
	if w := e.app.block.writing; w != nil { // of a block that was never committed
		w.Wait()
	}
	return e.writer.Settle()
}
