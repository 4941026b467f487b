// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestListenSaysWhy: what is in the way of a port differs, and so does what to do.
func TestListenSaysWhy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for address, want := range map[string]string{l.Addr().String(): "another program, perhaps another ledger, listens there; --metrics takes", "192.0.2.1:4711": "this machine has no such address; --metrics wants"} {
		got, err := listen("metrics", address)
		if err == nil {
			got.Close()
			t.Errorf("%s could be listened on", address)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

// TestStanding: of a frozen log it is not said that all is well.
func TestStanding(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	l.Must(n.Claim(l.Must(l.Register("shop", 1, nil))))
	s := l.State()
	if all, frozen := standing(s.Frozen(time.UnixMilli(s.TimeMs()))); all != "all is well" || frozen != "" {
		t.Errorf("%q, %q", all, frozen)
	}
	all, frozen := standing(s.Frozen(time.UnixMilli(s.TimeMs()).Add(time.Hour)))
	contains(t, all, "every entry is right, but the ledger stands still", "a block was due at", "59m45s ago by this clock", "ask another ledger")
	if strings.Contains(all, "well") || frozen == "" {
		t.Errorf("%q, %q", all, frozen)
	}
}

// TestMaxAge: where it is asked for, a copy that is held back is refused, with what
// to do.
func TestMaxAge(t *testing.T) {
	l := ledgertest.New(t)
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, l.RootEnv, 0o600); err != nil {
		t.Fatal(err)
	}
	verify := func(want int, args ...string) (out, errs string) {
		t.Helper()
		return zos(t, want, append([]string{"ledger", "verify", l.Dir, "--root", root}, args...)...)
	}
	out, _ := verify(exitOK, "--max-age", "10m")
	contains(t, out, "all is well")
	l.SignAt(func() time.Time { return time.Now().Add(-time.Hour) })
	out, _ = verify(exitOK)
	contains(t, out, "every entry is right, but the ledger stands still")
	_, errs := verify(exitRefused, "--max-age", "10m")
	contains(t, errs, "older than --max-age 10m0s allows", "ask another ledger or mirror")
	verify(exitOK, "--max-age", "2h")
	_, errs = verify(exitUsage, "--max-age", "0s")
	contains(t, errs, "want a time above 0")
}

// TestOldCopyIsTold: a copy from before an incident is right in every byte. Who
// audits it, or asks it for the history or the status, reads until when it goes and
// when it was signed; with --max-age it is refused.
func TestOldCopyIsTold(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n1", 1024)
	claim := l.Must(n.Claim(l.Must(l.Register("shop", 1, nil))))
	for _, p := range ledger.Phases() {
		l.Must(n.Record(claim, p, "ok", nil))
	}
	signed := time.Now().Add(-30 * 24 * time.Hour)
	l.SignAt(func() time.Time { return signed })
	old := l.Fork()
	l.SignAt(time.Now)
	l.Must(n.Record(claim, ledger.PhaseRunning, "failed", nil))
	root := file(t, "root.json", l.RootEnv)
	for _, command := range []string{"audit", "history", "status"} {
		ask := func(where string, want int, args ...string) (out, errs string) {
			t.Helper()
			return zos(t, want, append([]string{command, "shop", "--ledger", where, "--root", root}, args...)...)
		}
		size, until, at := old.State().Size(), clock(old.State().TimeMs()), clock(signed.Unix()*1000)
		out, _ := ask(old.Dir, exitOK)
		contains(t, out, fmt.Sprintf("%d entries until %s, signed at %s", size, until, at), "WARNING", "the ledger stands still", "this is an old copy")
		for _, word := range []string{"everything fits\n", "shop: running\n"} {
			if strings.Contains(out, word) {
				t.Errorf("%s: %q without a word about when:\n%s", command, word, out)
			}
		}
		out, _ = ask(old.Dir, exitOK, "--json")
		contains(t, out, fmt.Sprintf(`"timeMs":%d,"signedMs":%d,"frozen":"ledger stands still`, old.State().TimeMs(), signed.Unix()*1000), fmt.Sprintf(`"size":%d`, size))
		_, errs := ask(old.Dir, exitRefused, "--max-age", "24h")
		contains(t, errs, "older than --max-age 24h0m0s allows", "ask another ledger or mirror")
		ask(old.Dir, exitOK, "--max-age", "1000h")
		_, errs = ask(old.Dir, exitUsage, "--max-age", "0s")
		contains(t, errs, "want a time above 0")
		out, _ = ask(l.Dir, exitOK, "--max-age", "24h")
		if strings.Contains(out, "WARNING") {
			t.Errorf("%s of a fresh one warns:\n%s", command, out)
		}
	}
}
