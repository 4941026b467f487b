// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/consensus"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"
)

// start makes CometBFT's node. It panics where its data do not fit together.
func (e *Engine) start(dir string, mesh Mesh) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = misfit(filepath.Join(dir, "comet"), fmt.Sprint(r))
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
	core, ok := env.ConsensusState.(*consensus.State)
	if !ok {
		return fmt.Errorf("start consensus: its state is a %T", env.ConsensusState)
	}
	pace := newPacer(consensus.NewTimeoutTicker(), e.arrivals)
	pace.SetLogger(logger{to: e.log})
	core.SetTimeoutTicker(pace)
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
		core.Wait()
		select {
		case <-e.stop:
		default:
			e.fail(errors.New("consensus has ended; see the log above"))
		}
	}()
	e.loops.Go(e.tick)
	e.loops.Go(e.together)
	e.loops.Go(e.snapshots)
	return nil
}

// misfit says why CometBFT's data do not go with the log, in place of CometBFT's
// panic, which goes on with the whole of its state.
func misfit(comet, panicked string) error {
	why, _, _ := strings.Cut(panicked, "\n\nState:")
	why = strings.Join(strings.Fields(why), " ")
	if strings.Contains(panicked, "AppHash") {
		return fmt.Errorf("the data in %s come from a program with other rules than this one, or do not belong to this log (%s): run the version that the other validators run, and bring this one back with `zos ledger restore` from a backup made before", comet, why)
	}
	return fmt.Errorf("the data in %s do not fit the log: %s; restore both from the same backup", comet, why)
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
	// A height begins when the pacer says so.
	cfg.Consensus.TimeoutCommit, cfg.Consensus.SkipTimeoutCommit = 0, false
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
