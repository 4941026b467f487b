// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger/bft"
)

// TestPeer: what is wrong with a peer is said of the peer; a server is no peer of
// its own; one that was made without an address gets one, and says what it is.
func TestPeer(t *testing.T) {
	dir := t.TempDir()
	key := keyFile(t, dir, "root")
	server := func(name string, more ...string) string {
		d := filepath.Join(dir, name)
		zos(t, exitOK, append([]string{"ledger", "init", d, "--origin", "zos.example/" + name, "--role", "author=" + key + ".pub:1", "--role", "operator=" + key + ".pub:1",
			"--require", "deployment=author", "--root-key", key}, more...)...)
		return d
	}
	alone, one, two := server("alone"), server("one", "--mesh", "127.0.0.1:8471"), server("two", "--mesh", "127.0.0.1:8472")
	about := func(d string) string { return filepath.Join(d, "validator.json") }
	peers := func(d string) []string {
		t.Helper()
		m, err := bft.LoadMesh(d)
		if err != nil {
			t.Fatal(err)
		}
		return m.Peers
	}
	described := func(d string) string {
		t.Helper()
		v, err := bft.ReadDescription(about(d))
		if err != nil {
			t.Fatal(err)
		}
		return v.Peer
	}

	for _, bad := range []string{"foo@bar", "foo@127.0.0.1:1", "@127.0.0.1:1"} {
		_, e := zos(t, exitUsage, "ledger", "peer", one, bad)
		contains(t, e, `peer "`+bad+`", want id@host:port`)
		if strings.Contains(e, "--listen") {
			t.Errorf("%s: %s", bad, e)
		}
	}
	_, e := zos(t, exitUsage, "ledger", "peer", one, "--listen", "nowhere")
	contains(t, e, `listens on "nowhere", want host:port`)
	_, e = zos(t, exitRefused, "ledger", "peer", alone, about(one))
	contains(t, e, "no address on the mesh yet", "--listen HOST:PORT")
	_, e = zos(t, exitRefused, "ledger", "peer", one, about(alone))
	contains(t, e, "has no address on the mesh")
	if got := append(peers(one), peers(alone)...); len(got) > 0 {
		t.Errorf("peers after what was refused: %q", got)
	}

	o, _ := zos(t, exitOK, "ledger", "peer", one, about(one), about(two))
	contains(t, o, "skipped "+about(one)+": it is this server itself", "peer "+described(two))
	if got := peers(one); !slices.Equal(got, []string{described(two)}) {
		t.Errorf("its peers are %q", got)
	}
	// A version of before took it.
	m := bft.Mesh{Listen: "127.0.0.1:8471", Peers: []string{described(one), described(two)}}
	if err := m.Save(one); err != nil {
		t.Fatal(err)
	}
	o, _ = zos(t, exitOK, "ledger", "peer", one, described(one), "--json")
	var said struct {
		Listen, Self   string
		Peers, Skipped []string
	}
	if err := json.Unmarshal([]byte(o), &said); err != nil || said.Self != described(one) || !slices.Equal(said.Skipped, []string{described(one)}) || !slices.Equal(said.Peers, []string{described(two)}) {
		t.Errorf("%s: %v", o, err)
	}
	if got := peers(one); !slices.Equal(got, said.Peers) {
		t.Errorf("its peers are %q", got)
	}

	o, _ = zos(t, exitOK, "ledger", "peer", alone, "--listen", "127.0.0.1:8473", about(one))
	_, self, _ := strings.Cut(o, "to the others it is ")
	self, _, _ = strings.Cut(self, "\n")
	if !strings.HasSuffix(self, "@127.0.0.1:8473") {
		t.Fatal(o)
	}
	zos(t, exitOK, "ledger", "peer", one, self)
	if got := peers(one); !slices.Equal(got, []string{described(two), self}) {
		t.Errorf("its peers are %q", got)
	}

	// And out again, by each of its names.
	id, address, _ := strings.Cut(self, "@")
	for _, name := range []string{about(alone), self, id, address} {
		zos(t, exitOK, "ledger", "peer", one, "--remove", name)
		if got := peers(one); !slices.Equal(got, []string{described(two)}) {
			t.Errorf("its peers are %q without %s", got, name)
		}
		_, e = zos(t, exitNotFound, "ledger", "peer", one, "--remove", name)
		contains(t, e, "no such peer stands in mesh.json", described(two))
		zos(t, exitOK, "ledger", "peer", one, self)
	}
	zos(t, exitOK, "ledger", "peer", one, "--remove", id, "--remove", about(two))
	if got := peers(one); len(got) > 0 {
		t.Errorf("its peers are %q", got)
	}
}
