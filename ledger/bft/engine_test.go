// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// clock is a wall clock that a test moves.
type clock struct{ ahead atomic.Int64 }

func (c *clock) now() time.Time { return time.Now().Add(time.Duration(c.ahead.Load())) }

func open(t testing.TB, dir string, o Options) *Engine {
	t.Helper()
	e, err := Open(t.Context(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-e.stop: // by shut
			return
		default:
		}
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// shut closes an engine before the test ends.
func shut(t testing.TB, e *Engine) {
	t.Helper()
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
}

// until waits for commits until the state is as wanted.
func until(t *testing.T, e *Engine, what string, ok func(*ledger.State) bool) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	for {
		e.app.mu.RLock()
		news := e.app.news
		e.app.mu.RUnlock()
		if ok(e.State()) {
			return
		}
		select {
		case <-news:
		case <-deadline:
			t.Fatalf("waited 30 s for %s", what)
		}
	}
}

func TestSubmit(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	entry := l.Register("shop", 1, nil)
	r, err := e.Submit(t.Context(), entry)
	if err != nil || r.Index != 2 || r.Size != 4 {
		t.Fatalf("receipt %+v, %v", r, err)
	}
	again, err := e.Submit(t.Context(), entry)
	if err != nil || again.Index != 2 {
		t.Errorf("again: %+v, %v", again, err)
	}
	var refused *ledger.Refused
	for _, bad := range [][]byte{
		[]byte("zos-time:1"), []byte("zos-tick:1"), []byte("{}"), l.Register("shop", 1, nil)[1:],
		l.Sign(ledger.TypeDeployment, l.Spec("x", 1, nil), "author"),
	} {
		if _, err := e.Submit(t.Context(), bad); !errors.As(err, &refused) {
			t.Errorf("%.30q: %v", bad, err)
		}
	}
	// The same from many at once: one entry, one index.
	entry = l.Register("many", 1, nil)
	indexes := make([]int64, 20)
	var all sync.WaitGroup
	for i := range indexes {
		all.Go(func() {
			r, err := e.Submit(t.Context(), entry)
			if err != nil {
				t.Error(err)
			}
			indexes[i] = r.Index
		})
	}
	all.Wait()
	if slices.Max(indexes) != slices.Min(indexes) {
		t.Errorf("indexes are %v", indexes)
	}
	c := client(t, dir, dir)
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != e.State().StateRoot() {
		t.Errorf("the folder does not verify: %v", err)
	}
}

// After an idle hour an entry's time is that of now, not that of the last
// votes.
func TestTimeAfterIdle(t *testing.T) {
	l, dir := fresh(t, lease)
	var c clock
	e := open(t, dir, Options{now: c.now})
	if _, err := e.Submit(t.Context(), l.Register("a", 1, nil)); err != nil {
		t.Fatal(err)
	}
	c.ahead.Store(int64(time.Hour))
	before := c.now().UnixMilli()
	r, err := e.Submit(t.Context(), l.Register("b", 1, nil))
	if err != nil {
		t.Fatal(err)
	}
	if r.TimeMs < before || r.TimeMs > c.now().UnixMilli() {
		t.Errorf("ledger time is %d, submitted at %d", r.TimeMs, before)
	}
	c.ahead.Store(0) // the clock is set back: time stands still, the ledger does not
	again, err := e.Submit(t.Context(), l.Register("c", 1, nil))
	if err != nil || again.TimeMs != r.TimeMs {
		t.Errorf("with the clock set back: %+v, %v", again, err)
	}
}

func TestHonestTime(t *testing.T) {
	const now, sec = int64(1_000_000_000), int64(1000)
	for _, tt := range []struct {
		name      string
		t, ledger int64
		live, ok  bool
	}{
		{"now", now, now - 100*sec, true, true},
		{"a little ahead", now + 5*sec, now, true, true},
		{"too far ahead", now + 5*sec + 1, now, true, false},
		{"a little behind", now - 30*sec, now - 100*sec, true, true},
		{"too far behind", now - 30*sec - 1, now - 100*sec, true, false},
		{"too far behind, replayed", now - 3600*sec, now - 7200*sec, false, true},
		{"before the ledger", now - 1, now, true, false},
		{"standing still in the future", now + 3600*sec, now + 3600*sec, true, true},
		{"going on in the future", now + 3600*sec + 1, now + 3600*sec, true, false},
	} {
		if err := honest(tt.t, tt.ledger, now, tt.live); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for _, tx := range []string{"", "zos-time:", "zos-time:01", "zos-time:-1", "zos-time:1 ", "zos-time:+1", "zos-tick:1", "1"} {
		if _, err := parseTime([]byte(tx)); err == nil {
			t.Errorf("%q was taken as a time", tx)
		}
	}
}

func TestProposals(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	now := time.Now().UnixMilli()
	entry := l.Register("a", 1, nil)
	for _, tt := range []struct {
		name string
		txs  [][]byte
		ok   bool
	}{
		{"time and entry", [][]byte{timeTx(now), entry, tickTx(1)}, true},
		{"no transaction", nil, false},
		{"no time", [][]byte{entry}, false},
		{"time last", [][]byte{entry, timeTx(now)}, false},
		{"two times", [][]byte{timeTx(now), timeTx(now)}, false},
		{"no entry", [][]byte{timeTx(now), []byte("x")}, false},
		{"time of yesterday", [][]byte{timeTx(now - 86_400_000)}, false},
	} {
		if err := e.app.acceptable(1, tt.txs); (err == nil) != tt.ok {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
}

// On an idle ledger a lease still runs out, by blocks that the engine makes
// itself; and then it is silent.
func TestLeaseRunsOutOnIdleLedger(t *testing.T) {
	l, dir := fresh(t, ledger.LeasePolicy{WindowMs: 1, LeaseMs: 2000, GraceMs: 0})
	e := open(t, dir, Options{})
	submit := func(entryType string, payload any, s ...signer) int64 {
		t.Helper()
		b, err := ledger.NewEntry(entryType, payload, s...)
		if err != nil {
			t.Fatal(err)
		}
		r, err := e.Submit(t.Context(), b)
		if err != nil {
			t.Fatal(err)
		}
		return r.Index
	}
	n := l.NewNode("n")
	submit(ledger.TypeEnrol, ledger.Enrol{Name: "n", Key: n.Key.PublicKey(), Voucher: l.Voucher("v", 1, nil), Image: "x", Acted: e.State().Acted()}, n.Key, l.Keys["voucher"])
	offer := n.Capacity(4096)
	offer.Acted = e.State().Acted()
	submit(ledger.TypeCapacity, offer, n.Key)
	r, err := e.Submit(t.Context(), l.Register("shop", 1, nil))
	if err != nil {
		t.Fatal(err)
	}
	claim := submit(ledger.TypeClaim, ledger.Claim{Deployment: r.Index, Acted: e.State().Acted()}, n.Key)
	until(t, e, "the lease to run out", func(s *ledger.State) bool { return s.Claim(claim).State == ledger.GrantExpired })
	s := e.State()
	if s.DueMs() != -1 {
		t.Errorf("a block is still due at %d", s.DueMs())
	}
	c := client(t, dir, dir)
	if err := c.Sync(t.Context()); err != nil || c.State().Claim(claim).State != ledger.GrantExpired {
		t.Errorf("readers do not see it: %v", err)
	}
}

// Snapshots appear behind the checkpoint, and a reader can start from them.
func TestSnapshots(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{SnapshotEvery: 5})
	for i := range 8 {
		if _, err := e.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil)); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "a snapshot", func() bool { return snapshotSize(LogDir(dir)) >= 5 })
	root, err := os.ReadFile(filepath.Join(dir, "root.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: []string{dir}, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != e.State().StateRoot() {
		t.Errorf("from the snapshot: %v", err)
	}
}

func TestRestartKeepsState(t *testing.T) {
	l, dir := fresh(t, lease)
	for i := range 3 {
		e, err := Open(t.Context(), dir, Options{})
		if err != nil {
			t.Fatal(err)
		}
		if got := e.State().Size(); got != int64(2+2*i) {
			t.Errorf("size after %d starts is %d", i, got)
		}
		if _, err := e.Submit(t.Context(), l.Register(fmt.Sprintf("d%d", i), 1, nil)); err != nil {
			t.Fatal(err)
		}
		if err := e.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOpenSaysWhatIsWrong(t *testing.T) {
	l, dir := fresh(t, lease)
	if _, err := Open(t.Context(), t.TempDir(), Options{}); err == nil || !strings.Contains(err.Error(), "zos ledger init") {
		t.Errorf("no ledger: %v", err)
	}
	if err := Init(dir, l.Root, one, Mesh{}, []signer{l.Keys["root"]}, time.Now()); err == nil || !strings.Contains(err.Error(), "not empty") {
		t.Errorf("init twice: %v", err)
	}
	e, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := e.Submit(t.Context(), l.Register("a", 1, nil)); err != nil {
		t.Fatal(err)
	}
	root := l.Root
	root.Version = 2
	var refused *ledger.Refused
	if _, err := e.Submit(t.Context(), l.Sign(ledger.TypeRoot, root, "root")); !errors.As(err, &refused) || !strings.Contains(err.Error(), "are not all there") {
		t.Errorf("a root with other keys: %v", err)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "keys", "log.key")
	if info, err := os.Stat(key); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("log key: %v, %v", info, err)
	}
	if err := os.Chmod(key, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("open key: %v", err)
	}
	if err := os.Chmod(key, 0o600); err != nil {
		t.Fatal(err)
	}
	bundle := filepath.Join(dir, "log", "tile", "entries", "000.p", "4")
	b, err := os.ReadFile(bundle)
	if err != nil {
		t.Fatal(err)
	}
	b[100] ^= 1
	if err := os.WriteFile(bundle, b, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, ledger.ErrForged) {
		t.Errorf("damaged log: %v", err)
	}
	b[100] ^= 1
	if err := os.WriteFile(bundle, b, 0o644); err != nil {
		t.Fatal(err)
	}
	// Consensus data of before: the log would be ahead of them.
	if err := os.RemoveAll(filepath.Join(dir, "comet", "data")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); err == nil {
		t.Error("opened without consensus data")
	}
}

// TestNothingListens holds that CometBFT opens no port to the outside.
func TestNothingListens(t *testing.T) {
	cfg := settings(t.TempDir(), Mesh{})
	if cfg.RPC.ListenAddress != "" || cfg.RPC.GRPCListenAddress != "" || cfg.RPC.PprofListenAddress != "" || cfg.Instrumentation.Prometheus ||
		!strings.HasPrefix(cfg.P2P.ListenAddress, "tcp://127.0.0.1:") || cfg.P2P.PexReactor || cfg.P2P.ExternalAddress != "" {
		t.Errorf("settings are %+v %+v", cfg.RPC, cfg.P2P)
	}
}

// A disk that cannot be written ends the engine; nobody gets a receipt.
func TestFailedWriteIsFatal(t *testing.T) {
	l, dir := fresh(t, lease)
	e, err := Open(t.Context(), dir, Options{})
	if err != nil {
		t.Fatal(err)
	}
	e.app.mu.Lock()
	e.app.writer = nil // any write panics inside Commit, as a fault of the machine would
	e.app.mu.Unlock()
	if r, err := e.Submit(t.Context(), l.Register("a", 1, nil)); err == nil {
		t.Errorf("receipt %+v for what was never written", r)
	}
	<-e.Failed()
	if e.Health() == nil {
		t.Error("healthy")
	}
	if err := e.Close(); err != nil {
		t.Log(err)
	}
	again := open(t, dir, Options{})
	until(t, again, "the block to be replayed", func(s *ledger.State) bool { return s.DeploymentByName("a") != nil })
}

// BenchmarkSubmit is the time from submit to receipt, one after the other.
func BenchmarkSubmit(b *testing.B) {
	l, dir := fresh(b, lease)
	e := open(b, dir, Options{})
	var all []time.Duration
	entries := make([][]byte, b.N)
	for i := range entries {
		entries[i] = l.Register(fmt.Sprintf("d%d", i), 1, nil)
	}
	b.ResetTimer()
	for _, entry := range entries {
		start := time.Now()
		if _, err := e.Submit(b.Context(), entry); err != nil {
			b.Fatal(err)
		}
		all = append(all, time.Since(start))
	}
	slices.Sort(all)
	b.ReportMetric(float64(all[len(all)/2].Microseconds())/1000, "p50-ms")
	b.ReportMetric(float64(all[len(all)*99/100].Microseconds())/1000, "p99-ms")
}

// A block that validators are bound to since before a halt is taken in the end:
// without it nothing could ever be decided again.
func TestOldBlockAfterHalt(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	must(t, e, l.Register("a", 1, nil))
	now := time.Now().Add(time.Minute)
	a := &app{state: e.State(), now: func() time.Time { return now }}
	a.live.Store(true)
	old := [][]byte{timeTx(max(now.UnixMilli(), a.ledgerTime()+1))}
	now = now.Add(time.Hour)
	for i, step := range []struct {
		after  time.Duration
		height int64
		ok     bool
	}{{0, 7, false}, {20 * time.Second, 7, false}, {11 * time.Second, 7, true}, {0, 7, true}, {0, 8, false}, {31 * time.Second, 8, true}} {
		now = now.Add(step.after)
		if err := a.acceptable(step.height, old); (err == nil) != step.ok {
			t.Errorf("step %d: %v, want it taken: %t", i, err, step.ok)
		}
	}
	ahead := [][]byte{timeTx(now.Add(time.Minute).UnixMilli())}
	if err := a.acceptable(8, ahead); err == nil {
		t.Error("a block from the future is taken after a halt")
	}
}
