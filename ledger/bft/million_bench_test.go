// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// million takes a ledger of one validator to as many entries as
// ZOS_BENCH_ENTRIES says, 10⁶ without, through the whole engine, on the disk
// where temporary files are: 100 nodes run 1000 deployments and renew their
// claims, which is what long logs are made of. Then everybody starts late: the
// server, a client from its snapshot, one from entry 0, an audit. Every receipt
// is held against the log.
func (b *bench) million(t *testing.T) {
	want := 1_000_000
	if s := os.Getenv("ZOS_BENCH_ENTRIES"); s != "" {
		var err error
		if want, err = strconv.Atoi(s); err != nil {
			t.Fatal(err)
		}
	}
	day := 24 * time.Hour
	l, dir := fresh(t, ledger.LeasePolicy{WindowMs: 1, LeaseMs: day.Milliseconds(), GraceMs: day.Milliseconds()})
	l.Dir = string(LogDir(dir)) // of which the engine writes the files
	var err error
	if l.RootEnv, err = os.ReadFile(filepath.Join(dir, "root.json")); err != nil {
		t.Fatal(err)
	}
	m := &mass{t: t, log: l, dir: dir}
	m.open(Options{})
	m.begin()
	m.grow(b, want)
	name := fmt.Sprintf("log of %d entries: ", m.engine.State().Size())
	m.started(b, name)
	m.followed(b, name)
	m.pruned(b, name)
	if err := m.engine.Close(); err != nil {
		t.Fatal(err)
	}
}

// mass is a ledger that is filled.
type mass struct {
	t        *testing.T
	log      *ledgertest.Log // for its keys
	dir      string
	engine   *Engine
	claims   []renewal
	older    ledger.Acted        // a state before that of the claims
	receipts [][sha256.Size]byte // of what has one, by its index
}

func (m *mass) open(o Options) {
	var err error
	if m.engine, err = Open(m.t.Context(), m.dir, o); err != nil {
		m.t.Fatal(err)
	}
}

// submit hands in entries, 500 at once, and again where the server is busy, as
// clients do.
func (m *mass) submit(entries [][]byte) []int64 {
	indexes := make([]int64, len(entries))
	var next atomic.Int64
	var all sync.WaitGroup
	for range 500 {
		all.Go(func() {
			for {
				i := int(next.Add(1)) - 1
				if i >= len(entries) {
					return
				}
				var busy *ledger.Busy
				r, err := m.engine.Submit(m.t.Context(), entries[i])
				for errors.As(err, &busy) {
					r, err = m.engine.Submit(m.t.Context(), entries[i])
				}
				if err != nil {
					m.t.Errorf("entry was not taken: %v", err)
					return
				}
				indexes[i] = r.Index
			}
		})
	}
	all.Wait()
	for i, index := range indexes {
		for int64(len(m.receipts)) <= index {
			m.receipts = append(m.receipts, [sha256.Size]byte{})
		}
		if m.receipts[index] != [sha256.Size]byte{} {
			m.t.Fatalf("two entries have index %d", index)
		}
		m.receipts[index] = sha256.Sum256(entries[i])
	}
	if m.t.Failed() {
		m.t.FailNow()
	}
	return indexes
}

// acted is the present state.
func (m *mass) acted() ledger.Acted {
	m.engine.app.mu.RLock()
	defer m.engine.app.mu.RUnlock()
	return m.engine.app.state.Acted()
}

// begin enrols 100 nodes, and has 1000 deployments registered and claimed.
func (m *mass) begin() {
	t, l := m.t, m.log
	nodes := make([]*ledgertest.Node, 100)
	for i := range nodes {
		nodes[i] = l.NewNode(fmt.Sprintf("n%d", i))
	}
	voucher, acted := l.Voucher("v", int64(len(nodes)), nil), m.acted()
	m.submit(inParallel(t, len(nodes), func(i int) ([]byte, error) {
		n := nodes[i]
		return ledger.NewEntry(ledger.TypeEnrol, ledger.Enrol{Name: n.Name, Key: n.Key.PublicKey(), Voucher: voucher, Image: "test", Acted: acted}, n.Key, l.Keys["voucher"])
	}))
	acted = m.acted()
	m.submit(inParallel(t, len(nodes), func(i int) ([]byte, error) {
		p := nodes[i].Capacity(1 << 20)
		p.VCPUs, p.Acted = 1<<20, acted
		return ledger.NewEntry(ledger.TypeCapacity, p, nodes[i].Key)
	}))
	deployments := m.submit(inParallel(t, 1000, func(i int) ([]byte, error) {
		return l.Register(fmt.Sprintf("m%d", i), 1, func(d *spec.Deployment) { d.Gateways = nil }), nil
	}))
	time.Sleep(time.Second) // windows of 1 ms: it is everybody's turn
	acted = m.acted()
	m.older = acted
	claims := m.submit(inParallel(t, len(deployments), func(i int) ([]byte, error) {
		return ledger.NewEntry(ledger.TypeClaim, ledger.Claim{Deployment: deployments[i], Acted: acted}, nodes[i%len(nodes)].Key)
	}))
	for i, c := range claims {
		m.claims = append(m.claims, renewal{nodes[i%len(nodes)], c})
	}
}

// grow renews the claims until the log is long enough. What is submitted next
// is signed meanwhile.
func (m *mass) grow(b *bench, want int) {
	m.t.Helper()
	begin, before, from := time.Now(), processorTime(m.t), int64(len(m.receipts))
	next, told := renewals(m.t, m.claims, m.older), from
	for len(m.receipts) < want {
		block, acted := next, m.acted() // each round from another state: else it says the same again
		var signing sync.WaitGroup
		signing.Go(func() { next = renewals(m.t, m.claims, acted) })
		m.submit(block)
		signing.Wait()
		if size := int64(len(m.receipts)); size-told >= 100_000 {
			told = size
			m.t.Logf("%d entries after %s, %.0f s of processor time", size, time.Since(begin).Round(time.Second), (processorTime(m.t) - before).Seconds())
		}
	}
	n := int64(len(m.receipts)) - from
	b.add(benchRow{What: fmt.Sprintf("filling a log to %d entries through the engine, 500 at once", len(m.receipts)), Value: float64(n) / time.Since(begin).Seconds(), Unit: "entries/s",
		Note: fmt.Sprintf("renewals with one signature, which is made beside; %.0f us of processor time each with that; a snapshot after each 10,000", cost(m.t, before, n))})
}

// started measures a start of the server, and what it takes and holds.
func (m *mass) started(b *bench, name string) {
	t := m.t
	m.engine.app.mu.Lock()
	start := time.Now()
	copied := m.engine.app.state.Clone()
	held := time.Since(start)
	m.engine.app.mu.Unlock()
	start = time.Now()
	snapshot := copied.Snapshot()
	b.add(benchRow{What: name + "making a snapshot", Value: time.Since(start).Seconds(), Unit: "s", Note: fmt.Sprintf("%d MB; ordering stands still for %d ms of it", len(snapshot)/1_000_000, held.Milliseconds())})
	copied, snapshot = nil, nil
	if err := m.engine.Close(); err != nil {
		t.Fatal(err)
	}
	m.engine, m.claims = nil, m.claims[:1]
	heap := heapNow()
	start = time.Now()
	m.open(Options{})
	took := time.Since(start)
	b.add(benchRow{What: name + "start of the server", Value: took.Seconds(), Unit: "s", Note: "from its own snapshot, with what followed it"})
	b.add(benchRow{What: name + "memory of the server", Value: float64(heapNow()-heap) / 1e6, Unit: "MB", Note: "heap after its start and a collection"})
	files, tree := folderSize(t, string(LogDir(m.dir))), folderSize(t, filepath.Join(m.dir, "comet"))
	b.add(benchRow{What: name + "on the disk", Value: float64(files+tree) / 1e6, Unit: "MB", Note: fmt.Sprintf("static files %d MB, CometBFT's blocks and votes %d MB", files/1_000_000, tree/1_000_000)})
	m.submit(renewals(t, m.claims, m.acted())) // it goes on
}

// followed measures clients that start now, and holds the receipts against
// what they read.
func (m *mass) followed(b *bench, name string) {
	t, l := m.t, m.log
	m.fresh()
	root, size := m.engine.State().StateRoot(), m.engine.State().Size()
	var best, busy time.Duration
	for range 3 {
		runtime.GC()
		before, start := processorTime(t), time.Now()
		if got := caughtUp(t, l, true); got != root {
			t.Fatalf("a start from the snapshot has state root %s, want %s", got, root)
		}
		if took := time.Since(start); best == 0 || took < best {
			best, busy = took, processorTime(t)-before
		}
	}
	b.add(benchRow{What: name + "start of a client from the snapshot, best of 3", Value: best.Seconds(), Unit: "s", Goal: "<= 2 s", Met: yes(best <= 2*time.Second), Note: fmt.Sprintf("checked against the log; %.2f s of processor time", busy.Seconds())})
	before, start := processorTime(t), time.Now()
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}})
	if err == nil {
		err = c.Sync(t.Context())
	}
	if err != nil || c.State().StateRoot() != root {
		t.Fatalf("a replay has another state: %v", err)
	}
	rate := float64(size) / time.Since(start).Seconds()
	b.add(benchRow{What: name + "client catch-up from entry 0, every signature and rule", Value: rate, Unit: "entries/s", Anchor: replayRate, Goal: ">= 5 x", Met: timesReplay(rate), Note: fmt.Sprintf("%.0f s in all, %.0f us of processor time each", float64(size)/rate, cost(t, before, size))})
	held := 0
	err = c.Entries().Range(t.Context(), 0, size, func(i int64, raw []byte) error {
		if i < int64(len(m.receipts)) && m.receipts[i] != [sha256.Size]byte{} {
			if m.receipts[i] != sha256.Sum256(raw) {
				return fmt.Errorf("entry %d is not the one that the receipt was for", i)
			}
			held++
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range m.receipts {
		if r != [sha256.Size]byte{} {
			held--
		}
	}
	if held != 0 {
		t.Fatalf("%d receipts are of entries that are not there", -held)
	}
	m.submit(renewals(t, m.claims, m.acted()))
	before, start = processorTime(t), time.Now()
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != m.engine.State().StateRoot() {
		t.Fatalf("a client that goes on has another state: %v", err)
	}
	b.add(benchRow{What: name + "one more block for a client", Value: float64(time.Since(start).Microseconds()) / 1000, Unit: "ms", Note: fmt.Sprintf("checkpoint, proof of consistency, a copy of the state, one renewal; %.1f ms of processor time", cost(t, before, 1)/1000)})
	c = nil
	runtime.GC()
	before, start = processorTime(t), time.Now()
	r, err := audit.Run(t.Context(), audit.Config{Root: l.RootEnv, Ledger: l.Dir, Deployment: "m7"})
	if err != nil {
		t.Fatal(err)
	}
	b.add(benchRow{What: name + "audit of one deployment, everything computed twice", Value: time.Since(start).Seconds(), Unit: "s", Note: fmt.Sprintf("%d entries, %d files, %d entries of its story; %.0f s of processor time", r.Entries, r.Files, len(r.Story.Items), (processorTime(t) - before).Seconds())})
}

// fresh waits for a snapshot of now.
func (m *mass) fresh() {
	if err := os.WriteFile(wantFile(m.dir), nil, 0o600); err != nil {
		m.t.Fatal(err)
	}
	m.engine.wake()
	waitFor(m.t, "a snapshot", func() bool {
		_, err := os.Stat(wantFile(m.dir))
		return errors.Is(err, fs.ErrNotExist)
	})
}

// pruned forgets all but the newest tenth, and starts once more.
func (m *mass) pruned(b *bench, name string) {
	t := m.t
	if err := m.engine.Close(); err != nil {
		t.Fatal(err)
	}
	size := func() int64 { return folderSize(t, m.dir) }
	all := size()
	m.open(Options{Keep: int64(len(m.receipts) / 10), Archives: []string{"https://mirror.example"}})
	start := time.Now()
	m.submit(renewals(t, m.claims, m.acted()))
	m.fresh()
	waitFor(t, "the pruning", func() bool {
		_, err := os.Stat(filepath.Join(m.log.Dir, "pruned"))
		return err == nil
	})
	took := time.Since(start)
	m.submit(renewals(t, m.claims, m.acted())) // CometBFT removes its blocks with the next one
	if got := caughtUp(t, m.log, true); got != m.engine.State().StateRoot() {
		t.Fatalf("a start from a log that was pruned has state root %s", got)
	}
	b.add(benchRow{What: name + "pruning all but a tenth", Value: took.Seconds(), Unit: "s", Note: fmt.Sprintf("with the snapshot before it; %d MB on the disk before, %d MB after", all/1_000_000, size()/1_000_000)})
}

// heapNow is what lives on the heap.
func heapNow() int64 {
	runtime.GC()
	var s runtime.MemStats
	runtime.ReadMemStats(&s)
	return int64(s.HeapAlloc)
}

// folderSize is the size of all files in a folder.
func folderSize(t *testing.T, dir string) (n int64) {
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		var info fs.FileInfo
		if err == nil && !d.IsDir() {
			if info, err = d.Info(); err == nil {
				n += info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) { // the engine is at work
			return nil
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// processorTime is what this process has used, whatever else the machine does.
func processorTime(t *testing.T) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		t.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// renewal is a claim and the node that has it.
type renewal struct {
	node  *ledgertest.Node
	claim int64
}

// renewals signs a block of them, on all processors.
func renewals(t *testing.T, claims []renewal, acted ledger.Acted) [][]byte {
	return inParallel(t, len(claims), func(i int) ([]byte, error) {
		return ledger.NewEntry(ledger.TypeRenew, ledger.Renew{Claim: claims[i].claim, Acted: acted}, claims[i].node.Key)
	})
}

// caughtUp is the state root of a client that has read the log.
func caughtUp(t *testing.T, l *ledgertest.Log, snapshot bool) string {
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, Snapshot: snapshot})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c.State().StateRoot()
}
