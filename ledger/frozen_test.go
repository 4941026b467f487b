// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestFrozen: a log that was served as it once was is right in every byte; where
// leases run, the block that is missing betrays it, to a mirror as well.
func TestFrozen(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	id := l.Must(l.Register("shop", 1, nil))
	now := func(after time.Duration) time.Time { return time.UnixMilli(l.State().TimeMs()).Add(after) }
	if err := l.State().Frozen(now(1000 * time.Hour)); err != nil {
		t.Errorf("a log without leases: %v", err)
	}
	l.Must(n.Claim(id))
	// A quarter of a lease, which is a minute here, is how long it may be silent.
	for after, want := range map[time.Duration]bool{-time.Hour: false, 0: false, 2 * time.Minute: false, 2*time.Minute + 16*time.Second: true, 1000 * time.Hour: true} {
		if err := l.State().Frozen(now(after)); errors.Is(err, ledger.ErrFrozen) != want {
			t.Errorf("%s after its last block: %v, want frozen %t", after, err, want)
		}
	}
	signed := now(0)
	l.SignAt(func() time.Time { return signed })
	frozen := l.Fork()
	m, err := ledger.OpenMirror(t.Context(), t.TempDir(), 1000, ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{frozen.Dir}})
	if err != nil {
		t.Fatal(err)
	}
	at := now(time.Second)
	m.SetNow(func() time.Time { return at })
	if err := m.Sync(t.Context()); err != nil || m.Health() != nil {
		t.Fatalf("%v, %v", err, m.Health())
	}
	at = now(10 * time.Minute)
	if err := m.Sync(t.Context()); err != nil || !errors.Is(m.Health(), ledger.ErrFrozen) {
		t.Errorf("a mirror of a frozen log: %v, %v", err, m.Health())
	}
	l.Pass(10 * 60_000)
	l.Block()
	if err := l.State().Frozen(now(time.Second)); err != nil {
		t.Errorf("the log itself, which went on: %v", err)
	}
}

// TestSignedAnew: where no lease runs, how old the newest signatures are tells an
// idle log from a copy that somebody holds back. Readers take the newest of those
// that are of one tree, and a mirror hands them on.
func TestSignedAnew(t *testing.T) {
	l := ledgertest.New(t)
	begun := time.UnixMilli(l.NowMs())
	at := begun
	clock := func() time.Time { return at }
	l.SignAt(clock)
	old := l.Fork()
	dir := t.TempDir()
	m, err := ledger.OpenMirror(t.Context(), dir, 1000, ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{old.Dir, l.Dir}})
	if err != nil {
		t.Fatal(err)
	}
	m.SetNow(clock)
	sync := func() {
		t.Helper()
		if err := m.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	copied := func() int64 {
		t.Helper()
		c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{dir}})
		if err == nil {
			err = c.Sync(t.Context())
		}
		if err != nil {
			t.Fatal(err)
		}
		return c.Checkpoint().FreshSec
	}
	if sync(); m.Health() != nil || copied() != begun.Unix() {
		t.Fatalf("new: %v, signed at %d", m.Health(), copied())
	}
	at = begun.Add(5 * time.Minute)
	if sync(); m.Health() != nil {
		t.Errorf("five minutes old: %v", m.Health())
	}
	at = begun.Add(5*time.Minute + time.Second)
	if sync(); !errors.Is(m.Health(), ledger.ErrFrozen) {
		t.Errorf("more than five minutes old: %v", m.Health())
	}
	l.SignAt(clock)
	if sync(); m.Health() != nil || copied() != at.Unix() {
		t.Errorf("signed anew: %v, the copy at %d, want %d", m.Health(), copied(), at.Unix())
	}
	// One that serves what it had takes nothing back.
	l.SignAt(func() time.Time { return begun })
	if sync(); m.Health() != nil || copied() != at.Unix() {
		t.Errorf("an older signature: %v, the copy at %d, want %d", m.Health(), copied(), at.Unix())
	}
}
