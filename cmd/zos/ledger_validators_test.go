// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/zos-node/zos/image/imagetest"
	"github.com/zos-node/zos/ledger/bft"
)

// TestMain is also the zos that the demo and tests start as processes of their
// own.
func TestMain(m *testing.M) {
	if os.Getenv("ZOS_TEST_RUN") != "" && len(os.Args) > 1 && (os.Args[1] == "ledger" || os.Args[1] == "node" || os.Args[1] == "image") {
		main()
	}
	os.Exit(m.Run())
}

// Four processes on loopback by one command; one leaves, comes back, and a
// fifth joins. All by the commands that operators use.
func TestValidatorCommands(t *testing.T) {
	t.Setenv("ZOS_TEST_RUN", "1")
	t.Setenv("ZOS_LEDGER", "")
	t.Setenv("ZOS_ROOT", "")
	dir := t.TempDir()
	ctx, stop := context.WithCancel(context.Background())
	out := &lineWriter{line: make(chan string, 1)}
	code := make(chan int, 1)
	go func() {
		code <- run(ctx, []string{"ledger", "demo", "--validators", "4", "--dir", dir, "--port", "0", "--json"}, out, os.Stderr)
	}()
	defer func() {
		if stop(); code != nil {
			if c := <-code; c != exitOK && c != exitInterrupted {
				t.Errorf("the demo ended with %d", c)
			}
		}
	}()
	var demo struct {
		Root    string
		Keys    string
		Ledgers []string
	}
	select {
	case line := <-out.line:
		if err := json.Unmarshal([]byte(line), &demo); err != nil || len(demo.Ledgers) != 4 {
			t.Fatalf("%q: %v", line, err)
		}
	case c := <-code:
		code = nil
		t.Fatalf("the demo ended with %d", c)
	}
	key := filepath.Join(demo.Keys, "root")
	at := func(i int) []string { return []string{"--ledger", demo.Ledgers[i], "--root", demo.Root} }
	verify := func(i int) string {
		o, _ := zos(t, exitOK, "ledger", "verify", demo.Ledgers[i], "--root", demo.Root)
		return o
	}
	contains(t, verify(0), "all is well", "trust root  version 2")

	// The demo knows who releases node images.
	image := file(t, "node.uki", imagetest.UKI("1.4.0", "pc-x86_64", []byte("kernel")))
	by := append([]string{"--key", filepath.Join(demo.Keys, "release")}, at(0)...)
	zos(t, exitOK, append([]string{"release", image, "--store", filepath.Join(dir, "store")}, by...)...)
	zos(t, exitOK, append([]string{"rollout", "1.4.0"}, by...)...)
	o, _ := zos(t, exitOK, append([]string{"status"}, at(0)...)...)
	contains(t, o, "released 1.4.0", "rollout of 1.4.0")

	// A backup of one, restored beside it; and one more starts from the snapshot
	// that the backup had made.
	fourthDir := filepath.Join(dir, "validator-4")
	saved := filepath.Join(dir, "saved.tar")
	o, _ = zos(t, exitOK, "ledger", "backup", fourthDir, "-o", saved)
	_, over := zos(t, exitRefused, "ledger", "backup", fourthDir, "-o", saved)
	contains(t, over, "is there already", "--replace")
	zos(t, exitOK, "ledger", "backup", fourthDir, "-o", saved, "--replace")
	contains(t, o, "backed up", "private keys")
	if info, err := os.Stat(saved); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the backup: %v, %v", info, err)
	}
	zos(t, exitUsage, "ledger", "restore", saved, filepath.Join(dir, "again"))
	o, _ = zos(t, exitOK, append([]string{"ledger", "restore", saved, filepath.Join(dir, "again")}, at(0)...)...)
	contains(t, o, "restored", "zos ledger serve")
	_, e := zos(t, exitRefused, "ledger", "backup", filepath.Join(dir, "again"), "-o", saved)
	contains(t, e, "copy the folder as it is")
	zos(t, exitRefused, "ledger", "restore", fourthDir+"/validator.json", filepath.Join(dir, "no"), "--alone")
	tar, err := os.ReadFile(saved)
	if err != nil {
		t.Fatal(err)
	}
	half := file(t, "half.tar", tar[:len(tar)/2])
	_, e = zos(t, exitRefused, "ledger", "restore", half, filepath.Join(dir, "no"), "--alone")
	contains(t, e, half+": the backup is cut off", "take another backup")
	zos(t, exitNotFound, "ledger", "restore", saved+"-not", filepath.Join(dir, "no"), "--alone")
	quickly := filepath.Join(dir, "quickly")
	o, _ = zos(t, exitOK, append([]string{"ledger", "join", quickly, "--from-snapshot", "--name", "quickly", "--mesh", "127.0.0.1:1", "--peer", fourthDir + "/validator.json"}, at(3)...)...)
	contains(t, o, "zos ledger invite")
	if _, err := os.Stat(filepath.Join(quickly, "log", "consensus")); err != nil {
		t.Error(err)
	}

	// Nobody's place is taken by accident, and nobody is invited who is not there.
	first := filepath.Join(dir, "validator-1", "validator.json")
	o, _ = zos(t, exitOK, append([]string{"ledger", "invite", first, "--key", key}, at(0)...)...)
	contains(t, o, "nothing changes: trust root version 2 has exactly these 4 validators")
	_, e = zos(t, exitRefused, append([]string{"ledger", "invite", first, "--key", key, "-o", filepath.Join(dir, "none.json")}, at(0)...)...)
	contains(t, e, "nothing changes", "nothing to sign")
	join := append([]string{"ledger", "join", filepath.Join(dir, "second"), "--name", "validator-1", "--mesh", "127.0.0.1:1", "--peer", first}, at(0)...)
	_, e = zos(t, exitRefused, join...)
	contains(t, e, "the ledger has a validator validator-1 with another key already", "--replace")
	if _, err := os.Stat(filepath.Join(dir, "second")); err == nil {
		t.Error("a refused join left a folder")
	}
	zos(t, exitOK, append(join, "--replace")...)
	second := append([]string{"ledger", "invite", filepath.Join(dir, "second", "validator.json"), "--key", key}, at(0)...)
	_, e = zos(t, exitRefused, second...)
	contains(t, e, "the ledger has a validator validator-1 with another key already", "--replace")
	_, e = zos(t, exitRefused, append(second, "--replace")...)
	contains(t, e, "validator-1 has not signed the log's tree of size", "zos ledger serve", "zos ledger peer")
	contains(t, verify(0), "trust root  version 2")

	_, e = zos(t, exitNotFound, append([]string{"ledger", "leave", "validator-9", "--key", key}, at(0)...)...)
	contains(t, e, `no validator "validator-9"`)
	o, _ = zos(t, exitOK, append([]string{"ledger", "leave", "validator-4", "--key", key}, at(0)...)...)
	contains(t, o, "trust root version 3 (3 validators, 3 of them needed)", "the log was checked")
	fourth := filepath.Join(dir, "validator-4", "validator.json")
	next := filepath.Join(dir, "next.json")
	zos(t, exitOK, append([]string{"ledger", "invite", fourth, "--key", filepath.Join(demo.Keys, "author"), "-o", next}, at(1)...)...)
	_, e = zos(t, exitRefused, append([]string{"submit", next}, at(1)...)...)
	contains(t, e, `"root" has 0 of 1`)
	o, _ = zos(t, exitOK, append([]string{"ledger", "invite", fourth, "--key", key}, at(1)...)...)
	contains(t, o, "trust root version 4 (4 validators, 3 of them needed)")

	fifth := filepath.Join(dir, "validator-5")
	_, e = zos(t, exitUsage, append([]string{"ledger", "join", fifth, "--name", "Five", "--mesh", "127.0.0.1:1", "--peer", fourth}, at(2)...)...)
	contains(t, e, `"Five"`)
	o, _ = zos(t, exitOK, append([]string{"ledger", "join", fifth + "b", "--name", "five", "--mesh", "127.0.0.1:1", "--peer", fourth}, at(2)...)...)
	contains(t, o, "zos ledger invite")
	o, _ = zos(t, exitOK, "ledger", "peer", filepath.Join(dir, "validator-4"), fifth+"b/validator.json")
	contains(t, o, "@127.0.0.1:1")
}

// TestPeerListen: a server that gets an address on the mesh later, or another one,
// has it in what the other operators are given.
func TestPeerListen(t *testing.T) {
	dir := t.TempDir()
	key := keyFile(t, dir, "root")
	var led []string
	for _, name := range []string{"a", "b"} {
		led = append(led, filepath.Join(dir, name))
		zos(t, exitOK, "ledger", "init", filepath.Join(dir, name), "--origin", "zos.example/"+name, "--role", "author="+key+".pub:1", "--role", "operator="+key+".pub:1", "--require", "deployment=author", "--root-key", key)
	}
	described := filepath.Join(led[0], "validator.json")
	_, e := zos(t, exitRefused, "ledger", "peer", led[1], described)
	contains(t, e, "has no address on the mesh")
	before, err := bft.ReadDescription(described)
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"10.9.0.1:8471", "10.9.0.7:8471"} {
		o, _ := zos(t, exitOK, "ledger", "peer", led[0], "--listen", address)
		contains(t, o, "listens on "+address, "start this server again", described)
		now, err := bft.ReadDescription(described)
		if id, at, _ := strings.Cut(now.Peer, "@"); err != nil || at != address || len(id) != 40 || now.Validator != before.Validator {
			t.Errorf("the others are told %+v, %v", now, err)
		}
		o, _ = zos(t, exitOK, "ledger", "peer", led[1], described, "--listen", "10.9.0.2:8471")
		contains(t, o, "peer "+now.Peer)
		if strings.Count(o, "  peer ") != 1 {
			t.Errorf("both addresses are kept:\n%s", o)
		}
	}
	_, e = zos(t, exitUsage, "ledger", "peer", led[0], "--listen", "10.9.0.1:0")
	contains(t, e, "want host:port")
	if err := os.Remove(described); err != nil {
		t.Fatal(err)
	}
	_, e = zos(t, exitNotFound, "ledger", "peer", led[0], "--listen", "10.9.0.8:8471")
	contains(t, e, "not in what the others are told", "validator.json")
}

// TestInviteWaits: a server that orders by a new trust root and still publishes
// the old one. The change is made to the new one, and it is said what is waited
// for.
func TestInviteWaits(t *testing.T) {
	t.Setenv("ZOS_LEDGER", "")
	t.Setenv("ZOS_ROOT", "")
	dir := t.TempDir()
	key, led := keyFile(t, dir, "root"), filepath.Join(dir, "ledger")
	zos(t, exitOK, "ledger", "init", led, "--origin", "zos.example/late", "--role", "author="+key+".pub:1", "--role", "operator="+key+".pub:1", "--require", "deployment=author", "--root-key", key)
	server, err := url.Parse(serve(t, led))
	if err != nil {
		t.Fatal(err)
	}
	old := []byte(fetched(t, server.String()+"/checkpoint"))
	var left atomic.Int64 // how often the old checkpoint is still given
	proxy := httputil.NewSingleHostReverseProxy(server)
	late := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/checkpoint" && left.Add(-1) >= 0 {
			_, _ = w.Write(old)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer late.Close()
	moved, err := bft.ReadDescription(filepath.Join(led, "validator.json"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(mirror string) string {
		moved.Validator.Mirror = mirror
		b, err := json.Marshal(moved)
		if err != nil {
			t.Fatal(err)
		}
		return file(t, "moved.json", b)
	}
	invite := func(description string) (string, string) {
		return zos(t, exitOK, "ledger", "invite", description, "--key", key, "--ledger", late.URL, "--root", filepath.Join(led, "root.json"))
	}
	if o, e := invite(at("https://one.example")); !strings.Contains(o, "trust root version 2") || e != "" {
		t.Errorf("%s%s", o, e)
	}
	left.Store(1)
	o, e := invite(at("https://two.example"))
	contains(t, o, "trust root version 3")
	contains(t, e, "newer trust root than it has published", "is 2, want 3")
	if left.Load() >= 0 {
		t.Error("the old checkpoint was not asked for")
	}
}
