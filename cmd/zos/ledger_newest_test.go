// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
)

// orderer is a server that tells its newest block, and stands still.
type orderer int64

func (o orderer) NewestBlock() int64 { return int64(o) }
func (o orderer) Health() error      { return &ledger.Busy{Reason: "stands still"} }
func (o orderer) Submit(context.Context, []byte) (ledger.Receipt, error) {
	return ledger.Receipt{}, o.Health()
}

// TestRestoreAsks: a validator is restored only where it is known what it may have
// signed: by a log that was signed just now, and a server that knows the blocks
// without entries too. The backup is looked at after that.
func TestRestoreAsks(t *testing.T) {
	l := ledgertest.New(t)
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, l.RootEnv, 0o600); err != nil {
		t.Fatal(err)
	}
	tells := func(block int64) string {
		s := httptest.NewServer(ledger.Handler(tiles.Dir(l.Dir), orderer(block), slog.New(slog.DiscardHandler)))
		t.Cleanup(s.Close)
		return s.URL
	}
	a := &app{out: &bytes.Buffer{}, err: &bytes.Buffer{}}
	if _, err := a.othersNewest(t.Context(), ledgerFlags{ledgers: []string{l.Dir}, root: root}, false); err == nil {
		t.Error("a copy of a ledger that has ordered nothing is believed to know the newest block")
	}
	for i := range 3 {
		l.Must(l.Register("shop", int64(i+1), nil))
	}
	logged := l.State().Height()
	right, further, behind, liar := tells(logged+1), tells(logged+9), tells(logged-1), tells(1<<60)
	none := filepath.Join(t.TempDir(), "no.tar") // so that nothing is restored in the end
	restore := func(want int, args ...string) string {
		t.Helper()
		_, e := zos(t, want, append([]string{"ledger", "restore", none, filepath.Join(t.TempDir(), "x"), "--root", root}, args...)...)
		return e
	}
	for name, c := range map[string]struct {
		signed time.Duration // ago
		want   int
		args   []string
		said   string
	}{
		"a server":                 {0, exitNotFound, []string{"--ledger", right}, "no.tar"},
		"a server beside a copy":   {0, exitNotFound, []string{"--ledger", l.Dir + "," + right}, "no.tar"},
		"a copy":                   {0, exitRefused, []string{"--ledger", l.Dir}, "none is a validator's server"},
		"a server that is behind":  {0, exitRefused, []string{"--ledger", behind}, "none is a validator's server that has the newest blocks"},
		"a server that lies":       {0, exitRefused, []string{"--ledger", right + "," + liar}, "tells of block"},
		"an old copy":              {6 * time.Minute, exitRefused, []string{"--ledger", l.Dir}, "--halted"},
		"an old copy, by a server": {6 * time.Minute, exitRefused, []string{"--ledger", right}, "it could sign twice"},
		"a clock that is behind":   {-10 * time.Minute, exitRefused, []string{"--ledger", right}, "set this clock"},
		"halted":                   {6 * time.Minute, exitNotFound, []string{"--ledger", right, "--halted"}, "no.tar"},
		"halted, without a server": {6 * time.Minute, exitNotFound, []string{"--ledger", l.Dir, "--halted"}, "warning: no validator's server tells its newest block"},
		"both":                     {0, exitUsage, []string{"--alone", "--halted"}, "--alone asks none"},
	} {
		t.Run(name, func(t *testing.T) {
			l.SignAt(func() time.Time { return time.Now().Add(-c.signed) })
			contains(t, restore(c.want, c.args...), c.said)
		})
	}
	l.SignAt(time.Now)
	if got, err := a.othersNewest(t.Context(), ledgerFlags{ledgers: []string{right, l.Dir, further, behind}, root: root}, false); err != nil || got != logged+9 {
		t.Errorf("the newest block of all is %d, %v, want %d", got, err, logged+9)
	}
}
