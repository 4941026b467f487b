// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

func TestNodeIncidents(t *testing.T) {
	l := ledgertest.New(t)
	root := file(t, "root.json", l.RootEnv)
	on := []string{"--ledger", l.Dir, "--root", root}
	n := l.Join("edge-1", 1024)
	l.Join("edge-2", 1024)
	out, _ := zos(t, exitOK, append([]string{"node", "incidents"}, on...)...)
	contains(t, out, "no node has reported")
	l.Must(n.Entry(ledger.TypeIncident, ledger.Incident{Claim: -1, Kind: "node-panic", Detail: "Kernel panic: x\x1b[2J\n\tmain.go:7\nevil: y", Acted: l.Acted()}))

	out, _ = zos(t, exitOK, append([]string{"node", "incidents", "edge-1"}, on...)...)
	contains(t, out, "edge-1  node-panic: Kernel panic: x")
	if strings.Contains(out, "main.go") || strings.Contains(out, "\x1b") {
		t.Errorf("%q", out)
	}
	out, _ = zos(t, exitOK, append([]string{"node", "incidents", "--detail"}, on...)...)
	contains(t, out, "      main.go:7", "    evil: y")
	out, _ = zos(t, exitOK, append([]string{"node", "incidents", "edge-2", "--json"}, on...)...)
	if strings.TrimSpace(out) != "[]" {
		t.Errorf("another node's: %s", out)
	}
	out, _ = zos(t, exitOK, append([]string{"node", "incidents", n.ID, "--json"}, on...)...)
	var all []incident
	if err := json.Unmarshal([]byte(out), &all); err != nil || len(all) != 1 || all[0].Node != "edge-1" || all[0].Kind != "node-panic" {
		t.Errorf("%s, %v", out, err)
	}
}
