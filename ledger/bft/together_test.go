// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cometbft/cometbft/p2p"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// freePort is an address on loopback that was free a moment ago.
func freePort(t testing.TB) string {
	t.Helper()
	// Below those that the kernel gives to whoever dials: a server that is
	// started again has to find it free.
	for range 1000 {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 16_000+rand.IntN(16_000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		} else if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
	t.Fatal("no port is free")
	return ""
}

// group is a ledger with several validators on loopback.
type group struct {
	t    testing.TB
	log  *ledgertest.Log // its keys
	dirs []string
	desc []Description
}

// newGroup makes a ledger of one validator and the folders of others that
// join it.
func newGroup(t testing.TB, n int) *group {
	t.Helper()
	g := &group{t: t, log: ledgertest.New(t)}
	root := g.log.Root
	root.Lease = lease
	dir := t.TempDir()
	if err := Init(dir, root, ledger.Validator{Name: "v1"}, Mesh{Listen: freePort(t)}, []signer{g.log.Keys["root"]}, time.Now()); err != nil {
		t.Fatal(err)
	}
	g.add(dir)
	for i := 1; i < n; i++ {
		g.join()
	}
	return g
}

func (g *group) add(dir string) {
	g.t.Helper()
	d, err := ReadDescription(filepath.Join(dir, "validator.json"))
	if err != nil {
		g.t.Fatal(err)
	}
	g.dirs, g.desc = append(g.dirs, dir), append(g.desc, d)
}

// join makes one more folder, known to the others.
func (g *group) join() { g.joinFrom(client(g.t, g.dirs[0], g.dirs[0]), false) }

func (g *group) joinFrom(c *ledger.Client, snapshot bool) {
	g.t.Helper()
	if err := c.Sync(g.t.Context()); err != nil {
		g.t.Fatal(err)
	}
	m := Mesh{Listen: freePort(g.t)}
	for _, d := range g.desc {
		m.Add(d.Peer)
	}
	dir := g.t.TempDir()
	d, err := Join(g.t.Context(), dir, c, ledger.Validator{Name: fmt.Sprintf("v%d", len(g.dirs)+1)}, m, snapshot)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, other := range g.dirs {
		m, err := LoadMesh(other)
		if err != nil {
			g.t.Fatal(err)
		}
		m.Add(d.Peer)
		if err := m.Save(other); err != nil {
			g.t.Fatal(err)
		}
	}
	g.add(dir)
}

// rotation is the next root, with these validators.
func (g *group) rotation(s *ledger.State, members ...int) []byte {
	g.t.Helper()
	root := *s.Root()
	root.Version++
	root.Log.Validators = nil
	for _, m := range members {
		root.Log.Validators = append(root.Log.Validators, g.desc[m].Validator)
	}
	root.Log.Quorum = ledger.QuorumOf(len(members))
	return g.log.Sign(ledger.TypeRoot, root, "root")
}

// must submits until the ledger takes it: at a start the validators still
// look for each other.
func must(t testing.TB, e *Engine, entry []byte) ledger.Receipt {
	t.Helper()
	for until := time.Now().Add(time.Minute); ; time.Sleep(100 * time.Millisecond) {
		r, err := e.Submit(t.Context(), entry)
		var busy *ledger.Busy
		if err == nil {
			return r
		}
		if !errors.As(err, &busy) || time.Now().After(until) {
			t.Fatalf("submit: %v", err)
		}
	}
}

// From one validator to four, on to another four without the first, and back
// to one. A client that has the first root follows all of it.
func TestOneToFourAndBack(t *testing.T) {
	g := newGroup(t, 5)
	var engines []*Engine
	for i := range 4 {
		engines = append(engines, open(t, g.dirs[i], Options{}))
	}
	first := client(t, g.dirs[0], g.dirs[0])
	if err := first.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	must(t, engines[0], g.log.Register("before", 1, nil))

	// A root that names one who is not there would end the log.
	var refused *ledger.Refused
	if _, err := engines[0].Submit(t.Context(), g.rotation(engines[0].State(), 0, 4)); !errors.As(err, &refused) || !strings.Contains(err.Error(), "v5 has not signed") {
		t.Errorf("a root with an absent validator: %v", err)
	}
	// Also where the four would go on without the fifth: none more could fail.
	absent := g.rotation(engines[0].State(), 0, 1, 2, 3, 4)
	if _, err := engines[0].Submit(t.Context(), absent); !errors.As(err, &refused) || !strings.Contains(err.Error(), "v5 has not signed the log's tree of size") {
		t.Errorf("a root with one of five absent: %v", err)
	}
	must(t, engines[0], g.rotation(engines[0].State(), 0, 1, 2, 3))
	for i, e := range engines {
		must(t, e, g.log.Register(fmt.Sprintf("four-%d", i), 1, nil))
	}
	if err := first.Sync(t.Context()); err != nil || len(first.Checkpoint().Cosigners) < 3 || first.State().Root().Version != 2 {
		t.Fatalf("a reader of before: %v, %v", first.Checkpoint().Cosigners, err)
	}
	// What each publishes is the same log, and stands by itself.
	for i, dir := range g.dirs[:4] {
		until(t, engines[i], "all entries", func(s *ledger.State) bool { return s.DeploymentByName("four-3") != nil })
		waitFor(t, "the checkpoint of "+dir, func() bool {
			c := client(t, g.dirs[0], dir)
			return c.Sync(t.Context()) == nil && c.State().DeploymentByName("four-3") != nil && len(c.Checkpoint().Cosigners) >= 3
		})
	}
	// The fifth comes, the first leaves.
	engines = append(engines, open(t, g.dirs[4], Options{}))
	waitFor(t, "the fifth to catch up", func() bool { return engines[4].State().DeploymentByName("four-3") != nil })
	must(t, engines[2], g.rotation(engines[2].State(), 1, 2, 3, 4))
	must(t, engines[4], g.log.Register("without-first", 1, nil))
	must(t, engines[3], g.rotation(engines[3].State(), 3))
	last := must(t, engines[3], g.log.Register("alone", 1, nil))
	// The image of then, with root 1, and nobody left whom it knows.
	c := client(t, g.dirs[0], g.dirs[3])
	if err := c.Sync(t.Context()); err != nil || c.State().Root().Version != 4 || len(c.Checkpoint().Cosigners) != 1 {
		t.Fatalf("with the first root: %v", err)
	}
	raw, err := c.Entries().Get(t.Context(), last.Index)
	if err != nil {
		t.Fatal(err)
	}
	if p, err := c.Entries().Prove(t.Context(), last.Index); err != nil || p.Check(raw) != nil {
		t.Errorf("proof: %v", err)
	}
	if err := c.Entries().Consistent(t.Context(), first.Checkpoint().Tree); err != nil {
		t.Errorf("the tree of before: %v", err)
	}
}

// waitFor polls with a long deadline.
func waitFor(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for until := time.Now().Add(4 * time.Minute); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("waited 4 min for %s", what)
		}
	}
}

// Nobody who is not named gets into the mesh.
func TestMeshFile(t *testing.T) {
	g := newGroup(t, 2)
	m, err := LoadMesh(g.dirs[0])
	if err != nil || len(m.Peers) != 1 || m.Peers[0] != g.desc[1].Peer {
		t.Fatalf("mesh is %+v, %v", m, err)
	}
	moved := strings.Split(m.Peers[0], "@")[0] + "@127.0.0.1:1"
	if m.Add(moved); len(m.Peers) != 1 || m.Peers[0] != moved {
		t.Errorf("an address changes: %+v", m)
	}
	id := strings.Split(g.desc[1].Peer, "@")[0]
	if !m.knows(id) || m.knows(strings.Repeat("0", len(id))) || m.knows("") || (Mesh{}).knows(id) {
		t.Error("knows the wrong ones")
	}
	for _, bad := range []string{`{"listen":"","peers":["` + moved + `"]}`, `{"listen":"127.0.0.1:1","peers":["x"]}`, `{"listen":"127.0.0.1:1"}`, `{`} {
		if err := os.WriteFile(meshFile(g.dirs[0]), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadMesh(g.dirs[0]); err == nil {
			t.Errorf("%s was taken", bad)
		}
	}
}

// TestPeerTakenOff: a peer that is taken out of the mesh file of a running server is
// disconnected, is turned away when it comes again, and is let in when it is named
// again.
func TestPeerTakenOff(t *testing.T) {
	g := newGroup(t, 2)
	said := &console{}
	e := open(t, g.dirs[0], Options{Log: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	open(t, g.dirs[1], Options{})
	id, _, _ := strings.Cut(g.desc[1].Peer, "@")
	connected := func() bool { return e.mesh.Switch.Peers().Has(p2p.ID(id)) }
	waitFor(t, "the peer to be connected", connected)
	m, err := LoadMesh(g.dirs[0])
	if err != nil {
		t.Fatal(err)
	}
	m.Remove(id)
	if err := m.Save(g.dirs[0]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the peer to be disconnected", func() bool { return !connected() })
	waitFor(t, "the peer to be turned away", func() bool {
		return said.count("peer "+id+" is not in the mesh file") > 0
	})
	time.Sleep(2 * redial * repeat) // nobody here dials it
	if connected() {
		t.Error("the peer that was taken out is connected again")
	}
	m.Add(g.desc[1].Peer)
	if err := m.Save(g.dirs[0]); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the peer to be back", connected)
}

// console is a log that several goroutines write.
type console struct {
	mu sync.Mutex
	b  strings.Builder
}

func (c *console) Write(p []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.b.Write(p)
}

func (c *console) count(s string) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Count(c.b.String(), s)
}

// TestStrangerOnTheMesh: a server of the same ledger, with a key that nobody
// named, dials a validator, again and again. It is turned away each time, gets no
// block, and those who are named are connected meanwhile.
func TestStrangerOnTheMesh(t *testing.T) {
	if !settings(t.TempDir(), Mesh{Listen: "127.0.0.1:1"}).FilterPeers || !settings(t.TempDir(), Mesh{}).FilterPeers {
		t.Error("CometBFT does not ask who may connect")
	}
	g := newGroup(t, 2)
	said := &console{}
	e := open(t, g.dirs[0], Options{Log: slog.New(slog.NewTextHandler(said, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	must(t, e, g.log.Register("secret", 1, nil))
	c := client(t, g.dirs[0], g.dirs[0])
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	m := Mesh{Listen: freePort(t)}
	m.Add(g.desc[0].Peer)
	dir := t.TempDir()
	d, err := Join(t.Context(), dir, c, ledger.Validator{Name: "stranger"}, m, false)
	if err != nil {
		t.Fatal(err)
	}
	id := func(peer string) p2p.ID { id, _, _ := strings.Cut(peer, "@"); return p2p.ID(id) }
	stranger := open(t, dir, Options{})
	waitFor(t, "the stranger to be turned away twice", func() bool {
		if e.mesh.Switch.Peers().Has(id(d.Peer)) {
			t.Fatal("the stranger is connected")
		}
		return said.count("peer "+string(id(d.Peer))+" is not in the mesh file") >= 2
	})
	open(t, g.dirs[1], Options{})
	waitFor(t, "the one that is named to be connected", func() bool { return e.mesh.Switch.Peers().Has(id(g.desc[1].Peer)) })
	if e.mesh.Switch.Peers().Has(id(d.Peer)) || stranger.State().DeploymentByName("secret") != nil {
		t.Errorf("the stranger has %d entries", stranger.State().Size())
	}
}
