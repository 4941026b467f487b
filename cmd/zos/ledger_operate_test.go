// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/sign"
)

// TestBackupOfNothing: of a ledger that has ordered nothing it is said at once that
// there is nothing to back up.
func TestBackupOfNothing(t *testing.T) {
	dir := t.TempDir()
	key, led := keyFile(t, dir, "root"), filepath.Join(dir, "ledger")
	zos(t, exitOK, "ledger", "init", led, "--origin", "zos.example/nothing", "--role", "operator="+key+".pub:1", "--shared-keys", "--root-key", key, "--require", "deployment=operator")
	serve(t, led)
	begin := time.Now()
	_, e := zos(t, exitRefused, "ledger", "backup", led, "-o", filepath.Join(dir, "b.tar"))
	contains(t, e, "has ordered nothing yet")
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("it took %s to say so", took)
	}
	if left, err := filepath.Glob(filepath.Join(dir, "*new-*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %q, %v", left, err)
	}
}

// TestPrunedLedger: operators see and change what is on a ledger whose server has
// pruned the past. Who looks at entries is told where they are.
func TestPrunedLedger(t *testing.T) {
	t.Setenv("ZOS_LEDGER", "")
	t.Setenv("ZOS_ROOT", "")
	dir := t.TempDir()
	root := filepath.Join(dir, "root.json")
	l := ledgertest.New(t)
	if err := os.WriteFile(root, l.RootEnv, 0o600); err != nil {
		t.Fatal(err)
	}
	next := l.Root
	next.Version, next.Policy.Roles = 2, maps.Clone(next.Policy.Roles)
	for role, name := range map[string]string{"root": "own root", "author": "author"} {
		s, err := sign.LoadSigner(keyFile(t, dir, role), nil)
		if err != nil {
			t.Fatal(err)
		}
		l.Keys[name] = s
		next.Policy.Roles[role] = sign.Role{Keys: []string{s.PublicKey()}, Threshold: 1}
	}
	l.Must(l.Sign(ledger.TypeRoot, next, "root", "own root"))
	l.Join("n1", 1024)
	for i := range 6 {
		var block [][]byte
		for j := range 100 {
			block = append(block, l.Register(fmt.Sprintf("d%d-%d", i, j), 1, nil))
		}
		l.Block(block...)
	}
	l.Snapshot(nil)
	if n, err := ledger.Prune(tiles.Dir(l.Dir), 512, []string{"https://archive.example"}); err != nil || n == 0 {
		t.Fatalf("pruned %d, %v", n, err)
	}
	l.Must(l.Register("late", 1, nil))
	at := []string{"--ledger", l.Serve(), "--root", root}
	does := func(want int, args ...string) (string, string) {
		t.Helper()
		return zos(t, want, append(args, at...)...)
	}
	out, _ := does(exitOK, "status", "d0-7")
	contains(t, out, "d0-7 version 1")
	out, _ = does(exitOK, "stop", "d0-7", "--key", filepath.Join(dir, "author"))
	contains(t, out, "the log was checked to have it there")
	does(exitOK, "ledger", "revoke", keyFile(t, dir, "bob")+".pub", "--key", filepath.Join(dir, "root"))
	key, other := keyFile(t, dir, "other"), filepath.Join(dir, "other-ledger")
	zos(t, exitOK, "ledger", "init", other, "--name", "second", "--origin", "test.example/log", "--role", "operator="+key+".pub:1", "--shared-keys", "--root-key", key, "--require", "deployment=operator")
	does(exitOK, "ledger", "invite", filepath.Join(other, "validator.json"), "--key", filepath.Join(dir, "root"), "-o", filepath.Join(dir, "next.json"))
	does(exitOK, "node", "capacity", "n1")
	does(exitOK, "node", "incidents")
	for _, args := range [][]string{{"ledger", "verify"}, {"history", "d0-7"}, {"audit", "d0-7"}} {
		_, e := does(exitUnreachable, args...)
		contains(t, e, "https://archive.example")
	}
}
