// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	abci "github.com/cometbft/cometbft/abci/types"
	"github.com/cometbft/cometbft/config"
	"github.com/cometbft/cometbft/mempool"
	"github.com/cometbft/cometbft/node"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"github.com/cometbft/cometbft/proxy"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// benchRow is one line of build/bench-ledger.json.
type benchRow struct {
	What   string  `json:"what"`
	Value  float64 `json:"value"`
	Unit   string  `json:"unit"`
	Anchor float64 `json:"anchor"` // the same of the anchor, 0 if there is none
	Goal   string  `json:"goal"`
	Met    string  `json:"met"` // "yes", "no" or "-"
	Note   string  `json:"note"`
}

type bench struct {
	t    *testing.T
	rows []benchRow
}

func (b *bench) add(r benchRow) {
	if r.Met == "" {
		r.Met = "-"
	}
	b.rows = append(b.rows, r)
	b.t.Logf("%-58s %12.2f %-10s anchor %10.2f  goal %-14s %s %s", r.What, r.Value, r.Unit, r.Anchor, r.Goal, r.Met, r.Note)
}

func yes(ok bool) string {
	if ok {
		return "yes"
	}
	return "no"
}

// save writes what is measured so far to the file that ZOS_BENCH names.
func (b *bench) save(t *testing.T) {
	out := os.Getenv("ZOS_BENCH")
	if out == "" {
		return
	}
	text, err := json.MarshalIndent(struct {
		CPUs int        `json:"cpus"`
		Go   string     `json:"go"`
		Rows []benchRow `json:"rows"`
	}{runtime.NumCPU(), runtime.Version(), b.rows}, "", "  ")
	if err == nil {
		err = os.WriteFile(out, append(text, '\n'), 0o644)
	}
	if err != nil {
		t.Error(err)
	}
}

// TestBench measures the ledger and its anchors in one run.
func TestBench(t *testing.T) {
	b := &bench{t: t}
	for _, part := range []struct {
		name    string
		measure func(t *testing.T)
	}{
		{"one", func(t *testing.T) { b.commits(t, 1) }}, {"four", func(t *testing.T) { b.commits(t, 4) }},
		{"client", b.client}, {"million", b.million}, {"reads", b.reads}, {"size", b.size}, {"claims", b.simulated}, {"growth", b.grown},
	} {
		t.Run(part.name, func(t *testing.T) {
			b.t = t
			part.measure(t)
		})
		b.save(t)
	}
}

// noop is CometBFT's anchor: an app that does nothing, with the same settings.
type noop struct {
	abci.BaseApplication
	mu      sync.Mutex
	waiting map[txID][]chan result
	txs     [][]byte
	total   atomic.Int64
	changes bool // its hash changes with each block that has transactions
	hash    []byte
}

func (a *noop) FinalizeBlock(_ context.Context, r *abci.RequestFinalizeBlock) (*abci.ResponseFinalizeBlock, error) {
	a.txs = r.Txs
	results := make([]*abci.ExecTxResult, len(r.Txs))
	for i := range results {
		results[i] = &abci.ExecTxResult{}
	}
	if a.changes && len(r.Txs) > 0 {
		sum := sha256.Sum256(append(a.hash, r.Hash...))
		a.hash = sum[:]
	}
	return &abci.ResponseFinalizeBlock{TxResults: results, AppHash: a.hash}, nil
}

func (a *noop) Commit(context.Context, *abci.RequestCommit) (*abci.ResponseCommit, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.total.Add(int64(len(a.txs)))
	for _, tx := range a.txs {
		id := txID(sha256.Sum256(tx))
		for _, w := range a.waiting[id] {
			w <- result{}
		}
		delete(a.waiting, id)
	}
	return &abci.ResponseCommit{}, nil
}

func (a *noop) ProcessProposal(context.Context, *abci.RequestProcessProposal) (*abci.ResponseProcessProposal, error) {
	return &abci.ResponseProcessProposal{Status: abci.ResponseProcessProposal_ACCEPT}, nil
}

// bare is one CometBFT node with the no-op app.
type bare struct {
	app  *noop
	node *node.Node
}

func openBare(t testing.TB, dir string, m Mesh, hash bool) *bare {
	t.Helper()
	cfg := settings(dir, m)
	cfg.FilterPeers = false
	key, err := p2p.LoadNodeKey(cfg.NodeKeyFile())
	if err != nil {
		t.Fatal(err)
	}
	b := &bare{app: &noop{waiting: map[txID][]chan result{}, changes: hash}}
	b.node, err = node.NewNode(cfg, privval.LoadFilePV(cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile()), key,
		proxy.NewLocalClientCreator(b.app), node.DefaultGenesisDocProviderFunc(cfg), config.DefaultDBProvider,
		node.DefaultMetricsProvider(cfg.Instrumentation), logger{to: discard()})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func (b *bare) submit(tx []byte) error {
	id, w := txID(sha256.Sum256(tx)), make(chan result, 1)
	b.app.mu.Lock()
	b.app.waiting[id] = append(b.app.waiting[id], w)
	b.app.mu.Unlock()
	if err := b.node.Mempool().CheckTx(tx, nil, mempool.TxInfo{}); err != nil {
		return err
	}
	<-w
	return nil
}

// driven is what came of entries that were handed in.
type driven struct {
	p50, p99, perSecond float64 // milliseconds, one after the other; entries, 200 at once
	cost                float64 // microseconds of processor time for each of those
}

// drive measures latency one after the other, then throughput.
func drive(t *testing.T, entries [][]byte, submit func(i int, tx []byte) error) driven {
	t.Helper()
	single := len(entries) / 5
	var took []time.Duration
	for i, e := range entries[:single] {
		start := time.Now()
		if err := submit(i, e); err != nil {
			t.Fatal(err)
		}
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	rest := entries[single:]
	var next atomic.Int64
	var all sync.WaitGroup
	before, start := processorTime(t), time.Now()
	for range 200 {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(rest) {
					return
				}
				if err := submit(i, rest[i]); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return driven{ms(took[len(took)/2]), ms(took[len(took)*99/100]), float64(len(rest)) / time.Since(start).Seconds(), cost(t, before, int64(len(rest)))}
}

// bare drives bare CometBFT with the same settings.
func (b *bench) bare(t *testing.T, n int, g *group, entries [][]byte, hash bool) driven {
	var bares []*bare
	dirs := make([]string, n)
	root := g.log.Root
	root.Log = ledger.LogPolicy{Origin: root.Log.Origin, Quorum: ledger.QuorumOf(n)}
	var meshes []Mesh
	for i := range n {
		dirs[i] = t.TempDir()
		m := Mesh{Listen: freePort(t)}
		d, err := makeKeys(dirs[i], root.Log.Origin, ledger.Validator{Name: fmt.Sprintf("v%d", i+1)}, m)
		if err != nil {
			t.Fatal(err)
		}
		root.Log.Validators = append(root.Log.Validators, d.Validator)
		for j := range i {
			p, err := ReadDescription(filepath.Join(dirs[j], "validator.json"))
			if err != nil {
				t.Fatal(err)
			}
			m.Add(p.Peer)
		}
		meshes = append(meshes, m)
	}
	envelope := g.log.Sign(ledger.TypeRoot, root, "root")
	begin := time.Now().UnixMilli() - 1000
	for i := range n {
		if err := writeGenesis(dirs[i], envelope, begin); err != nil {
			t.Fatal(err)
		}
	}
	for i := range n {
		bares = append(bares, openBare(t, dirs[i], meshes[i], hash))
		if err := bares[i].node.Start(); err != nil {
			t.Fatal(err)
		}
	}
	if err := bares[0].submit([]byte("warm")); err != nil {
		t.Fatal(err)
	}
	d := drive(t, entries, func(i int, tx []byte) error { return bares[i%n].submit(tx) })
	for _, x := range bares {
		if err := x.node.Switch().Stop(); err != nil { // as Engine.Close does
			t.Fatal(err)
		}
	}
	time.Sleep(5 * peerQuery)
	for _, x := range bares {
		if err := x.node.Stop(); err != nil {
			t.Fatal(err)
		}
		x.node.Wait()
	}
	if n == 1 && !hash {
		b.replay(t, dirs[0], meshes[0])
	}
	return d
}

func (b *bench) commits(t *testing.T, n int) {
	g := newGroup(t, n)
	entries := make([][]byte, map[int]int{1: 3000, 4: 1500}[n])
	for i := range entries {
		entries[i] = g.log.Register(fmt.Sprintf("d%d", i), 1, nil)
	}
	// The anchors first: an app that does nothing, and one that also has a hash
	// that changes, as every app with a state has: CometBFT then makes one more
	// block after each that changed it, which ours has to wait for too.
	bare := b.bare(t, n, g, entries, false)
	changing := b.bare(t, n, g, entries, true)

	var engines []*Engine
	for i := range n {
		e, err := Open(t.Context(), g.dirs[i], Options{})
		if err != nil {
			t.Fatal(err)
		}
		engines = append(engines, e)
	}
	if n > 1 {
		members := make([]int, n)
		for i := range members {
			members[i] = i
		}
		waitFor(t, "the rotation", func() bool {
			_, err := engines[0].Submit(t.Context(), g.rotation(engines[0].State(), members...))
			return err == nil
		})
	}
	for _, e := range engines {
		must(t, e, g.log.Register("warm", 1, nil))
	}
	begun := engines[0].State().Height()
	ours := drive(t, entries, func(i int, tx []byte) error {
		_, err := engines[i%n].Submit(t.Context(), tx)
		return err
	})
	blocks := engines[0].State().Height() - begun
	for _, e := range engines {
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
	name := fmt.Sprintf("%d validator(s): ", n)
	b.add(benchRow{What: name + "commit latency p50", Value: ours.p50, Unit: "ms", Anchor: bare.p50, Goal: "<= 1.3 x", Met: yes(ours.p50 <= 1.3*bare.p50), Note: "anchor: bare CometBFT, no-op app, same settings"})
	b.add(benchRow{What: name + "commit latency p99", Value: ours.p99, Unit: "ms", Anchor: bare.p99, Goal: "<= 1.3 x", Met: yes(ours.p99 <= 1.3*bare.p99)})
	b.add(benchRow{What: name + "throughput, 200 at once", Value: ours.perSecond, Unit: "entries/s", Anchor: bare.perSecond, Goal: ">= 0.7 x", Met: yes(ours.perSecond >= 0.7*bare.perSecond), Note: "signatures of 3 keys and rules checked, tiles fsynced, cosigned"})
	b.add(benchRow{What: name + "processor time of each, 200 at once", Value: ours.cost, Unit: "us", Anchor: bare.cost, Note: fmt.Sprintf("of all validators together; %d blocks for %d entries, latency and throughput", blocks, len(entries))})
	for _, r := range []struct {
		what, unit string
		ours, bare float64
	}{{"commit latency p50", "ms", ours.p50, changing.p50}, {"commit latency p99", "ms", ours.p99, changing.p99}, {"throughput, 200 at once", "entries/s", ours.perSecond, changing.perSecond}} {
		b.add(benchRow{What: name + r.what, Value: r.ours, Unit: r.unit, Anchor: r.bare, Note: "anchor: bare CometBFT, an app whose hash changes"})
	}
}

// What CometBFT's replay came to: transactions per second, and microseconds of
// processor time for each.
var replayRate, replayCost float64

// timesReplay says whether a rate is five times that of the replay, if that was
// measured in this run.
func timesReplay(rate float64) string {
	if replayRate == 0 {
		return "-"
	}
	return yes(rate >= 5*replayRate)
}

// cost is the microseconds of processor time since before, for each of n.
func cost(t *testing.T, before time.Duration, n int64) float64 {
	return float64((processorTime(t) - before).Microseconds()) / float64(n)
}

// replay measures CometBFT's replay of its blocks into an app that does nothing.
func (b *bench) replay(t *testing.T, dir string, m Mesh) {
	before, start := processorTime(t), time.Now()
	again := openBare(t, dir, m, false) // the app is at height 0: the handshake replays all
	took := time.Since(start)
	n := again.app.total.Load()
	replayRate, replayCost = float64(n)/took.Seconds(), cost(t, before, n)
	b.add(benchRow{What: "CometBFT block replay, no-op app", Value: replayRate, Unit: "tx/s", Note: fmt.Sprintf("%.0f us of processor time each", replayCost)})
}

func (b *bench) client(t *testing.T) {
	const n = 10_000
	l := ledgertest.New(t)
	for i := 0; i < n; i += 100 {
		var block [][]byte
		for j := range 100 {
			block = append(block, l.Register(fmt.Sprintf("d%d", i+j), 1, nil))
		}
		l.Must(block...)
	}
	runtime.GC()
	before, start := processorTime(t), time.Now()
	whole := l.Client("", l.Dir)
	if err := whole.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	rate, each := n/time.Since(start).Seconds(), cost(t, before, n)
	b.add(benchRow{What: "client catch-up, every signature and rule", Value: rate, Unit: "entries/s", Anchor: replayRate, Goal: ">= 5 x", Met: timesReplay(rate), Note: fmt.Sprintf("entries with 3 SSHSIG signatures; anchor checks nothing; %.0f us of processor time each, anchor %.0f us", each, replayCost)})
	l.Snapshot(nil)
	start = time.Now()
	if root := caughtUp(t, l, true); root != whole.State().StateRoot() {
		t.Fatalf("a start from the snapshot has state root %s", root)
	}
	b.add(benchRow{What: fmt.Sprintf("start from a snapshot at %d entries, all live deployments", n), Value: time.Since(start).Seconds(), Unit: "s"})
}
