// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// eventful is a ledger on which everything has happened once.
func eventful(t testing.TB) (*ledgertest.Log, *ledgertest.Node) {
	t.Helper()
	l := ledgertest.New(t)
	n := l.Join("n1", 4096)
	m := l.Join("n2", 1024)
	a := l.Must(l.Register("a", 1, nil))
	l.Must(l.Register("b", 1, func(d *spec.Deployment) { d.Gateways[0].Port = 8081 }))
	l.Pass(30_000)
	claim := l.Must(n.Claim(a))
	l.Must(n.Record(claim, "detect", "ok", nil))
	l.Must(l.Register("a", 2, func(d *spec.Deployment) { d.Gateways[0].Port = 8090 }))
	next := l.Root
	next.Version = 2
	next.Lease.LeaseMs++
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	p := l.Rollout(l.Must(l.NodeRelease("1.1", "a")), "1.1")
	p.Floor = "1.1"
	l.Must(l.ChunkedRelease("1.2", "a", "b"))
	rollout := l.Must(l.Sign(ledger.TypeRollout, p, "release"))
	l.Must(m.Entry(ledger.TypeUpdate, ledger.Update{Rollout: rollout, Version: "1.1", Running: "1.0", Result: ledger.UpdateRolledBack, Acted: l.Acted()}))
	l.Must(m.Entry(ledger.TypeIncident, ledger.Incident{Claim: -1, Kind: "test", Detail: "x", Acted: l.Acted()}))
	none := l.Rollout(p.Release, "1.1")
	none.Labels = map[string]string{"site": "nowhere"}
	l.Must(l.Sign(ledger.TypeRollout, none, "release"))
	l.Must(revoke(l, m.Key.PublicKey(), false, "root"))
	l.Must(revoke(l, l.NewNode("stranger").Key.PublicKey(), true, "root"))
	return l, n
}

// What starts from a snapshot comes to the same as what folds everything, now
// and with everything that follows.
func TestSnapshotIsTheState(t *testing.T) {
	l, n := eventful(t)
	b := l.State().Snapshot()
	s, err := ledger.OpenSnapshot(b)
	if err != nil {
		t.Fatal(err)
	}
	if s.StateRoot() != l.State().StateRoot() || s.RootHash() != l.State().RootHash() || !bytes.Equal(s.Snapshot(), b) {
		t.Fatal("the snapshot has another state")
	}
	l.Snapshot(nil)
	l.Must(l.Register("c", 1, func(d *spec.Deployment) { d.Gateways[0].Port = 8082 }))
	l.Pass(20_000)
	l.Must(n.Claim(l.State().DeploymentByName("a").ID)) // the new version, beside the old one's memory
	l.Pass(120_000)
	l.Block() // leases: the ledger stood still
	l.Pass(70_000)
	l.Must(l.Register("d", 1, nil))
	quick, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Serve()}, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	whole := l.Client("", l.Dir)
	for _, c := range []*ledger.Client{quick, whole} {
		if err := c.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if quick.State().StateRoot() != whole.State().StateRoot() || quick.State().Size() != l.State().Size() {
		t.Error("the two are not the same")
	}
	if u := quick.State().Updated(l.State().Rollouts()[0].ID, "n2"); u == nil || quick.State().Floor() != "1.1" || !quick.State().Rollouts()[0].Halted() {
		t.Errorf("what nodes run is not in the snapshot: %+v", u)
	}
	if len(whole.State().Incidents()) != 1 || len(quick.State().Incidents()) != 0 {
		t.Error("the quick one did not start from the snapshot")
	}
	// The same again is refused with its old place, also after a snapshot.
	var refused *ledger.Refused
	if err := quick.State().Check(0, l.Leaves[2]); !errors.As(err, &refused) || refused.Index != 2 {
		t.Errorf("the same again: %v", err)
	}
}

// Every altered byte, every lost and every added one is refused: none gives a
// client another state than the ledger's.
func TestSnapshotIsNotBelieved(t *testing.T) {
	l, _ := eventful(t)
	whole := l.State().Snapshot()
	other, _ := eventful(t)
	lies := map[string]func([]byte) []byte{
		"cut":               func(b []byte) []byte { return b[:len(b)-1] },
		"longer":            func(b []byte) []byte { return append(b, 0) },
		"of another ledger": func([]byte) []byte { return other.State().Snapshot() },
		"empty":             func([]byte) []byte { return nil },
	}
	for range 60 {
		at, bit := rand.IntN(len(whole)), byte(1)<<rand.IntN(8)
		lies[fmt.Sprintf("byte %d ^ %d", at, bit)] = func(b []byte) []byte { b[at] ^= bit; return b }
	}
	url := l.Serve()
	for name, lie := range lies {
		l.Snapshot(lie)
		c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{url}, Snapshot: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || c.State().Size() != 0 {
			t.Errorf("%s: %v, size %d", name, err, c.State().Size())
		}
	}
	// One that is newer than the checkpoint, and none, are no fault.
	fork := l.Fork()
	fork.Must(fork.Register("later", 1, nil))
	for name, f := range map[string]func(){
		"newer": func() { l.Snapshot(func([]byte) []byte { return fork.State().Snapshot() }) },
		"none":  func() { _ = os.Remove(filepath.Join(l.Dir, "snapshot")) },
	} {
		f()
		c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{url}, Snapshot: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != l.State().StateRoot() {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzSnapshot(f *testing.F) {
	l, _ := eventful(f)
	f.Add(l.State().Snapshot())
	f.Add(ledgertest.New(f).State().Snapshot())
	f.Add([]byte("zos-snapshot-v1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := ledger.OpenSnapshot(b)
		if err == nil && !bytes.Equal(s.Snapshot(), b) {
			t.Error("two snapshots for one state")
		}
	})
}
