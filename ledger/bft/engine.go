// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/mempool"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
	sm "github.com/cometbft/cometbft/state"
	cmttypes "github.com/cometbft/cometbft/types"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// Engine is a running ledger server's heart. It implements ledger.Submitter.
type Engine struct {
	app     *app
	node    *node.Node
	log     *slog.Logger
	stop    chan struct{} // closed by Close
	failed  chan struct{} // closed when the engine cannot go on
	failure chan error    // holds the reason, at most one
	loops   sync.WaitGroup
	mesh    *reactor
	poke    chan struct{} // there may be something to publish or to tell
	came    chan struct{} // there may be something in the mempool
	dir     string
	peers   atomic.Pointer[Mesh]
	present atomic.Pointer[presence]

	blocks   sm.BlockStore
	states   sm.Store
	keep     int64
	archives []string
	reserve  int64
	quotas   *ledger.Quotas
	wait     time.Duration // of a block that has no entries yet
	wish     int64         // of together alone: the size of the snapshot that was wanted
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
	state, durable, err := fold(ctx, dir, root, writer, o.Log)
	if err != nil {
		return nil, err
	}
	o.Log.Info("folded the log", "part", "ledger", "size", state.Size(), "took", time.Since(start))
	if o.step != nil {
		writer.Step = o.step
	}
	e := &Engine{
		log: o.Log, dir: dir, stop: make(chan struct{}), failed: make(chan struct{}), failure: make(chan error, 1), poke: make(chan struct{}, 1),
		came: make(chan struct{}, 1), quotas: ledger.NewQuotas(o.Quota),
	}
	e.peers.Store(&mesh)
	cache := ledger.NewCache()
	state.UseCache(cache)
	e.app = &app{
		writer: writer, cosign: newCollector(keys, first.Log.Origin), cache: cache, now: o.now, fail: e.fail, admit: e.admit, tell: e.wake, more: e.arrivals, log: o.Log, state: state, durable: durable,
		news: make(chan struct{}), waiting: map[txID][]chan result{}, every: o.SnapshotEvery, snapped: snapshotSize(LogDir(dir)),
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
	if err := e.app.cosign.sign(writer.Head(), o.now()); err != nil {
		return nil, err
	}
	e.mesh = newReactor(e.hear, e.statement)
	e.mesh.mute = o.mute
	e.look()
	if err := e.start(dir, mesh); err != nil {
		return nil, err
	}
	return e, nil
}

// start makes CometBFT's node. It panics where its data do not fit together.
func (e *Engine) start(dir string, mesh Mesh) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("the data in %s do not fit the log: %v; restore both from the same backup", filepath.Join(dir, "comet"), r)
		}
	}()
	cfg := settings(dir, mesh)
	nodeKey, err := p2p.LoadNodeKey(cfg.NodeKeyFile())
	if err != nil {
		return fmt.Errorf("p2p key: %w", err)
	}
	for _, f := range []string{cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile()} {
		// LoadFilePV ends the process where a file is missing.
		if _, err := os.Stat(f); err != nil {
			return fmt.Errorf("consensus key: %w", err)
		}
	}
	e.node, err = node.NewNode(cfg, privval.LoadFilePV(cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile()), nodeKey,
		proxy.NewConnSyncLocalClientCreator(e.app), node.DefaultGenesisDocProviderFunc(cfg), config.DefaultDBProvider,
		node.DefaultMetricsProvider(cfg.Instrumentation), logger{to: e.log}, node.CustomReactors(map[string]p2p.Reactor{"ZOS": e.mesh}))
	if err != nil {
		return fmt.Errorf("start consensus: %w", err)
	}
	// The only way to the consensus state from outside is this one.
	env, err := e.node.ConfigureRPC()
	if err != nil {
		return fmt.Errorf("start consensus: %w", err)
	}
	consensus, ok := env.ConsensusState.(interface{ Wait() })
	if !ok {
		return fmt.Errorf("start consensus: its state is a %T, which cannot be waited for", env.ConsensusState)
	}
	e.blocks, e.states = env.BlockStore, env.StateStore
	last, err := e.states.Load()
	if err != nil {
		return fmt.Errorf("start consensus: %w", err)
	}
	if err := mendWAL(cfg.Consensus.WalFile(), last.LastBlockHeight); err != nil {
		return err
	}
	if err := e.node.Start(); err != nil {
		return fmt.Errorf("start consensus: %w", err)
	}
	e.app.live.Store(true)
	go func() {
		// CometBFT answers a panic in consensus by standing still. We end.
		consensus.Wait()
		select {
		case <-e.stop:
		default:
			e.fail(errors.New("consensus has ended; see the log above"))
		}
	}()
	e.loops.Go(e.tick)
	e.loops.Go(e.together)
	return nil
}

// settings are CometBFT's: nothing reachable but the mesh, of which every
// member is named, and no block without a reason.
func settings(dir string, mesh Mesh) *config.Config {
	cfg := config.DefaultConfig()
	cfg.SetRoot(filepath.Join(dir, "comet"))
	cfg.Genesis = "genesis.json"
	cfg.PrivValidatorKey = filepath.Join("..", "keys", "consensus.json")
	cfg.PrivValidatorState = filepath.Join("data", "signed.json")
	cfg.NodeKey = filepath.Join("..", "keys", "p2p.json")
	cfg.RPC.ListenAddress = ""
	cfg.P2P.ListenAddress = "tcp://127.0.0.1:0"
	cfg.P2P.PexReactor = false
	cfg.P2P.AddrBook = filepath.Join("data", "addrbook.json")
	cfg.P2P.MaxNumInboundPeers, cfg.P2P.MaxNumOutboundPeers = 0, 0
	cfg.FilterPeers = true
	if mesh.Listen != "" {
		cfg.P2P.ListenAddress = "tcp://" + mesh.Listen
		cfg.P2P.MaxNumInboundPeers, cfg.P2P.MaxNumOutboundPeers = 2*maxPeers, 2*maxPeers
		cfg.P2P.PersistentPeers = strings.Join(mesh.Peers, ",")
		cfg.P2P.PersistentPeersMaxDialPeriod = 10 * time.Second
		// The mesh is a private network: its addresses are private ones, and
		// several validators may stand behind one of them.
		cfg.P2P.AddrBookStrict, cfg.P2P.AllowDuplicateIP = false, true
	}
	cfg.P2P.FlushThrottleTimeout = 10 * time.Millisecond
	cfg.Consensus.PeerQueryMaj23SleepDuration = peerQuery
	cfg.Consensus.PeerGossipSleepDuration = 10 * time.Millisecond
	cfg.Consensus.CreateEmptyBlocks = false
	cfg.Consensus.TimeoutCommit = 0
	cfg.Consensus.SkipTimeoutCommit = true
	// A validator that was stopped between its proposal and its vote cannot
	// sign another proposal for that round and has to sit it out.
	cfg.Consensus.TimeoutPropose = 500 * time.Millisecond
	cfg.Consensus.TimeoutPrevote = 200 * time.Millisecond
	cfg.Consensus.TimeoutPrecommit = 200 * time.Millisecond
	// What CheckTx asks does not change with the state.
	cfg.Mempool.Recheck = false
	cfg.TxIndex.Indexer = "null"
	cfg.Storage.DiscardABCIResponses = true
	cfg.Instrumentation.Prometheus = false
	return cfg
}

// peerQuery is how often CometBFT asks a peer for votes that it may lack. A
// routine that does so takes up to four times as long to notice its end.
const peerQuery = 250 * time.Millisecond

// maxPeers is how many other validators there can be.
const maxPeers = 32

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

// orderWait is how long a submitter waits for its entry.
const orderWait = 30 * time.Second

// Submit orders an entry and returns when it is on the disk, under a
// checkpoint that enough validators cosigned. What was said before gets its
// old place.
func (e *Engine) Submit(ctx context.Context, raw []byte) (ledger.Receipt, error) {
	entry, keys, err := e.app.cache.Open(raw)
	if err != nil {
		return ledger.Receipt{}, err
	}
	id := txID(sha256.Sum256(raw))
	w := e.app.wait(id)
	defer e.app.forget(id, w)

	if err := e.catchUp(ctx, entry); err != nil {
		return ledger.Receipt{}, err
	}
	e.app.mu.RLock()
	index, known := e.app.state.Indexed(entry)
	if !known {
		err = e.app.state.Check(e.app.now().UnixMilli(), raw)
	}
	e.app.mu.RUnlock()
	if err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.gather(ctx); err != nil {
		return ledger.Receipt{}, &ledger.Busy{Reason: err.Error(), After: silence}
	}
	late := time.NewTimer(orderWait)
	defer late.Stop()
	if known {
		return e.durable(ctx, late.C, ledger.Receipt{Index: index})
	}
	if err := e.room(); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.canServe(ctx, entry); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.quotas.Take(keys, time.Now()); err != nil {
		return ledger.Receipt{}, err
	}
	if err := e.push(raw); err != nil {
		return ledger.Receipt{}, err
	}
	select {
	case r := <-w:
		if r.err != nil {
			return r.receipt, r.err
		}
		if r.before {
			r.receipt.Size = 0 // it has the receipt that it had
		}
		return e.durable(ctx, late.C, r.receipt)
	case <-late.C:
		return ledger.Receipt{}, e.late("ordered")
	case <-ctx.Done():
		return ledger.Receipt{}, ctx.Err()
	case <-e.failed:
		return ledger.Receipt{}, e.Health()
	case <-e.stop:
		return ledger.Receipt{}, errors.New("the ledger is stopping; submit again")
	}
}

// late is the answer to one who waited long enough.
func (e *Engine) late(what string) error {
	reason := fmt.Sprintf("the entry was not %s within %s", what, orderWait)
	if err := e.quorum(); err != nil {
		reason += ": " + err.Error()
	}
	return &ledger.Busy{Reason: reason + "; submit the same again, it has one place only", After: silence}
}

// push hands a transaction to the mempool.
func (e *Engine) push(tx []byte) error {
	var answer *abci.ResponseCheckTx
	err := e.node.Mempool().CheckTx(cmttypes.Tx(tx), func(r *abci.ResponseCheckTx) { answer = r }, mempool.TxInfo{})
	switch {
	case errors.Is(err, mempool.ErrTxInCache): // somebody submits the same just now
		return nil
	case err != nil:
		return &ledger.Busy{Reason: "the ledger has more to order than it can keep: " + err.Error(), After: time.Second}
	case answer != nil && answer.Code != 0:
		return &ledger.Refused{Reason: answer.Log, Index: -1}
	}
	select {
	case e.came <- struct{}{}:
	default:
	}
	return nil
}

// durable waits until the entry of a receipt is on the disk, under a
// checkpoint. A receipt without a size becomes the one that the entry had.
func (e *Engine) durable(ctx context.Context, late <-chan time.Time, r ledger.Receipt) (ledger.Receipt, error) {
	for {
		e.app.mu.RLock()
		news, done := e.app.news, e.app.durable > r.Index
		size := e.app.durable
		e.app.mu.RUnlock()
		switch {
		case done && r.Size == 0:
			return receipt(LogDir(e.dir), r.Index, size)
		case done:
			return r, nil
		}
		select {
		case <-news:
		case <-late:
			return ledger.Receipt{}, e.late("cosigned")
		case <-ctx.Done():
			return ledger.Receipt{}, ctx.Err()
		case <-e.failed:
			return ledger.Receipt{}, e.Health()
		case <-e.stop:
			return ledger.Receipt{}, errors.New("the ledger is stopping; submit again")
		}
	}
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
	if len(e.peers.Load().Peers) > 0 {
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
	return nil
}
