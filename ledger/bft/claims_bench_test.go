// SPDX-License-Identifier: Apache-2.0

//go:build bench

package bft

import (
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

func discard() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

// fleet is a ledger with many nodes.
type fleet struct {
	log  *ledgertest.Log
	made []*ledgertest.Node
	n    int // deployments so far
}

func newFleet(t *testing.T, nodes int) *fleet {
	if _, err := os.Stat("/dev/shm"); err == nil {
		t.Setenv("TMPDIR", "/dev/shm") // what is measured needs no disk
	}
	l := ledgertest.New(t)
	// Nobody renews here: a lease of a day, so that none runs out meanwhile.
	root := l.Root
	root.Version, root.Lease.LeaseMs = 2, (24 * time.Hour).Milliseconds()
	l.Must(l.Sign(ledger.TypeRoot, root, "root"))
	voucher := l.Voucher("v", int64(nodes), nil)
	var made []*ledgertest.Node
	for i := 0; i < nodes; i += 100 {
		var enrol, offer [][]byte
		var fresh []*ledgertest.Node
		for j := i; j < min(i+100, nodes); j++ {
			n := l.NewNode(fmt.Sprintf("n%d", j))
			fresh = append(fresh, n)
			enrol = append(enrol, n.EnrolEntry(voucher))
		}
		l.Must(enrol...)
		for _, n := range fresh {
			p := n.Capacity(1 << 20)
			p.VCPUs = 1 << 20
			offer = append(offer, n.Entry(ledger.TypeCapacity, p))
		}
		l.Must(offer...)
		made = append(made, fresh...)
	}
	return &fleet{log: l, made: made}
}

// way is how nodes decide when to claim what they see at a poll.
type way struct {
	name        string // "" for what zos does
	windowMs    int64  // of the root of trust
	deployments func(nodes int) int
	// when is when a node sends its claim unless it has seen another one by then,
	// from the registration on: it polls at poll, and every 5 s after.
	when func(c ledger.Candidate, t0, poll int64, rng *rand.Rand) int64
}

// ways are ours, and what is done elsewhere: everybody at once, and everybody after
// a delay of his own choice. Those two need no order among the nodes, so the rules
// that decide have windows of a millisecond.
var ways = []way{
	{"", 10_000, func(int) int { return 1000 }, func(c ledger.Candidate, t0, poll int64, _ *rand.Rand) int64 {
		// It looks at its next poll after the window opens.
		phase := (c.FromMs - t0 + 5000 - poll) % 5000
		return c.FromMs - t0 + (5000-phase)%5000
	}},
	{"free-for-all: ", 1, fewer, func(_ ledger.Candidate, _, poll int64, _ *rand.Rand) int64 { return poll }},
	{"random delay of up to 60 s: ", 1, fewer, func(_ ledger.Candidate, _, poll int64, rng *rand.Rand) int64 { return poll + rng.Int64N(60_000) }},
}

// fewer deployments do where each has as many claims as there are nodes: 1000, 10
// and 3 of them keep the anchors within minutes. The note of each row says how many.
func fewer(nodes int) int { return max(3, 10_000/nodes) }

// window gives the ledger a root of trust with other windows.
func (f *fleet) window(ms int64) {
	root := *f.log.State().Root()
	root.Version, root.Lease.WindowMs = root.Version+1, ms
	f.log.Must(f.log.Sign(ledger.TypeRoot, root, "root"))
}

// claims simulates nodes that poll every 5 s, with blocks of 1 s, of which some
// are dead, and lets the real Apply decide. It counts claim entries and the
// ledger time from registration to claim.
func (b *bench) claims(t *testing.T, f *fleet, dead float64, w way) {
	l, nodes := f.log, len(f.made)
	rng := rand.New(rand.NewPCG(uint64(nodes), uint64(dead*100)))
	asleep, poll := map[string]bool{}, map[string]int64{}
	for _, n := range f.made {
		poll[n.ID] = rng.Int64N(5000)
		asleep[n.ID] = rng.Float64() < dead
	}
	var took []int64
	sent, accepted := 0, 0
	for range w.deployments(nodes) {
		f.n++
		shift := rng.Int64N(5000) // the registration comes at any moment between the polls
		id := l.Must(l.Register(fmt.Sprintf("d%d", f.n), 1, func(d *spec.Deployment) { d.Gateways = nil }))
		if w.name != "" {
			l.Pass(int64(nodes)) // every window is open before anybody looks
		}
		s := l.State()
		t0 := s.TimeMs()
		first := int64(-1)
		at := map[string]int64{}
		for _, c := range s.Candidates(s.Deployment(id)) {
			if asleep[c.Node] {
				continue
			}
			when := w.when(c, t0, (poll[c.Node]+shift)%5000, rng)
			at[c.Node] = when
			if first < 0 || when < first {
				first = when
			}
		}
		if first < 0 {
			continue
		}
		end := (first/1000 + 1) * 1000 // of the block that has the first claim
		var block [][]byte
		for _, n := range f.made {
			if when, ok := at[n.ID]; ok && when < end {
				block = append(block, n.Claim(id))
			}
		}
		l.Pass(end)
		out := l.Block(block...)
		sent, accepted = sent+len(block), accepted+len(out.Accepted)
		took = append(took, end)
	}
	if accepted != len(took) {
		t.Errorf("%d claims for %d deployments", accepted, len(took))
	}
	slices.Sort(took)
	p99 := float64(took[len(took)*99/100]) / 1000
	each := float64(sent) / float64(len(took))
	name := fmt.Sprintf("%s%d nodes, %.0f %% dead: ", w.name, nodes, 100*dead)
	entries := benchRow{What: name + "claim entries per deployment", Value: each, Unit: "entries", Goal: "anchor", Met: "-", Note: fmt.Sprintf("%d deployments, real Apply, windows of %d ms", len(took), w.windowMs)}
	wait := benchRow{What: name + "time to claim p99", Value: p99, Unit: "s", Goal: "anchor", Met: "-", Note: "ledger time; polls of 5 s, blocks of 1 s"}
	if w.name == "" {
		goal := map[float64]float64{0: 5, 0.05: 21, 0.3: 51}[dead]
		entries.Goal, entries.Met = "1.0", yes(each < 1.05)
		wait.Goal, wait.Met = fmt.Sprintf("<= %.0f s", goal), yes(p99 <= goal)
	}
	b.add(entries)
	b.add(wait)
}

// perNode is how many deployments a node runs in growth.
const perNode = 100

// growth measures one more entry at a number of live deployments.
func (b *bench) growth(t *testing.T, live int) {
	base := heapNow() // what parts before this one left
	f := newFleet(t, live/perNode)
	l := f.log
	root := l.Root
	root.Version, root.Lease.LeaseMs, root.Lease.WindowMs = 3, (24 * time.Hour).Milliseconds(), 1
	l.Must(l.Sign(ledger.TypeRoot, root, "root"))
	var claims []renewal
	for i := 0; i < live; i += 250 {
		block := inParallel(t, 250, func(j int) ([]byte, error) { return register(l, fmt.Sprintf("d%d", i+j)) })
		out := l.Block(block...)
		l.Pass(int64(len(f.made))) // it is everybody's turn
		acted := l.Acted()
		block = inParallel(t, 250, func(j int) ([]byte, error) {
			return ledger.NewEntry(ledger.TypeClaim, ledger.Claim{Deployment: out.Indexes[j], Acted: acted}, f.made[(i+j)%len(f.made)].Key)
		})
		out = l.Block(block...)
		for j := range block {
			if err := out.Refused[j]; err != nil {
				t.Fatal(err)
			}
			claims = append(claims, renewal{f.made[(i+j)%len(f.made)], out.Indexes[j]})
		}
	}
	l.Leaves = nil // the test's own copy
	s := l.State()
	const more = 100
	registers := inParallel(t, more, func(i int) ([]byte, error) { return register(l, fmt.Sprintf("m%d", i)) })
	renews := renewals(t, claims[:more], s.Acted())
	used := heapNow() - base
	// Two states: the log's and this one, which share what does not change.
	note := fmt.Sprintf("%d nodes; heap %d MB, %.1f kB for each, with the entries that registered them, in two states", len(f.made), used>>20, float64(used)/1000/float64(live))
	apply := func(what, per string, entries [][]byte) (ids []int64) {
		before, start := processorTime(t), time.Now()
		for i, e := range entries {
			out := s.Apply(s.Height()+1, s.TimeMs()+int64(i), [][]byte{e})
			if out.Refused[0] != nil {
				t.Fatal(out.Refused[0])
			}
			ids = append(ids, out.Indexes[0])
		}
		took := time.Since(start)
		b.add(benchRow{What: fmt.Sprintf("Apply of a block with one %s at %d live deployments", what, live), Value: float64((processorTime(t) - before).Microseconds()) / more / 1000, Unit: "ms", Goal: per,
			Note: fmt.Sprintf("processor time, state root and signatures included; %.3f ms by the clock; %s", float64(took.Microseconds())/more/1000, note)})
		return ids
	}
	made := apply("registration", "flat", registers)
	apply("renewal", "flat", renews)
	s.Apply(s.Height()+1, s.TimeMs()+int64(len(f.made)), nil) // it is everybody's turn
	acted := s.Acted()
	apply("claim", "linear in nodes", inParallel(t, more, func(i int) ([]byte, error) {
		return ledger.NewEntry(ledger.TypeClaim, ledger.Claim{Deployment: made[i], Acted: acted}, f.made[i%len(f.made)].Key)
	}))
}

// register is Log.Register for many: nobody verifies here what was just signed.
func register(l *ledgertest.Log, name string) ([]byte, error) {
	env := sign.Envelope{PayloadType: ledger.TypeDeployment, Payload: l.Spec(name, 1, func(d *spec.Deployment) { d.Gateways = nil })}
	namespace, err := sign.Namespace(env.PayloadType)
	if err != nil {
		return nil, err
	}
	for _, by := range []string{"author", "security1", "security2"} {
		sig, err := l.Keys[by].Sign(namespace, sign.PAE(env.PayloadType, env.Payload))
		if err != nil {
			return nil, err
		}
		env.Signatures = append(env.Signatures, sign.Signature{KeyID: l.Keys[by].KeyID(), Sig: sig})
	}
	return env.Encode()
}

// inParallel makes n entries on all processors.
func inParallel(t *testing.T, n int, entry func(i int) ([]byte, error)) [][]byte {
	block := make([][]byte, n)
	var all sync.WaitGroup
	for w := range runtime.GOMAXPROCS(0) {
		all.Go(func() {
			for i := w; i < n; i += runtime.GOMAXPROCS(0) {
				var err error
				if block[i], err = entry(i); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	return block
}

// simulated is the part that needs no engine.
func (b *bench) simulated(t *testing.T) {
	for _, nodes := range []int{10, 1000, 10_000} {
		f := newFleet(t, nodes)
		for _, w := range ways {
			f.window(w.windowMs)
			for _, dead := range []float64{0, 0.05, 0.3} {
				b.claims(t, f, dead, w)
			}
		}
	}
}

// grown measures what one more entry costs, the more there is.
func (b *bench) grown(t *testing.T) {
	for _, live := range []int{1000, 10_000, 100_000} {
		b.growth(t, live)
	}
}
