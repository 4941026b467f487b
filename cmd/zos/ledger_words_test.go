// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

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
