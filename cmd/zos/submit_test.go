// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestOneLiarDecidesNothing: of several ledgers one refuses what it should not. The
// others are asked, with a trust root and without.
func TestOneLiarDecidesNothing(t *testing.T) {
	l := ledgertest.New(t)
	log := l.Handler()
	liar := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/submit" {
			log.ServeHTTP(w, r)
			return
		}
		w.WriteHeader(http.StatusConflict)
		if _, err := io.WriteString(w, `{"error":"not today"}`); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	defer liar.Close()
	root := file(t, "root.json", l.RootEnv)
	both, none := liar.URL+","+l.Serve(), liar.URL
	entry := func(name string) string { return file(t, name, l.Register(name, 1, nil)) }

	a := entry("a")
	out, _ := zos(t, exitOK, "submit", a, "--ledger", both, "--root", root)
	contains(t, out, "is entry 2 of the ledger, since", "the log was checked")
	out, _ = zos(t, exitOK, "submit", entry("b"), "--ledger", both)
	contains(t, out, "is entry 4 of the ledger, since")
	_, errs := zos(t, exitRefused, "submit", entry("c"), "--ledger", none, "--root", root)
	contains(t, errs, "not today", "by the log it could stand there")
	_, errs = zos(t, exitRefused, "submit", entry("d"), "--ledger", none)
	contains(t, errs, "the ledger refuses it", "not today")
	// What stands there stands there, whatever the liar says.
	out, _ = zos(t, exitOK, "submit", a, "--ledger", none, "--root", root)
	contains(t, out, "is entry 2 of the ledger\n", "the log was checked")
	// Where an honest one is away, the liar's word is not the end of it.
	away := httptest.NewServer(http.NotFoundHandler())
	away.Close()
	_, errs = zos(t, exitUnreachable, "submit", entry("e"), "--ledger", liar.URL+","+away.URL, "--root", root)
	contains(t, errs, "not today")

	// Commands that make the entry themselves go the same way.
	key := file(t, "key", l.VoucherKey)
	l.Keys["author"] = l.Keys["voucher"]
	next := l.Root
	next.Version, next.Policy.Roles["author"] = 2, l.Role(1, "author")
	l.Must(l.Sign(ledger.TypeRoot, next, "root"))
	out, _ = zos(t, exitOK, "stop", "a", "--key", key, "--ledger", both, "--root", root)
	if !strings.Contains(out, "stop of a") || l.State().DeploymentByName("a").Stopped < 0 {
		t.Errorf("stop says %s", out)
	}
}
