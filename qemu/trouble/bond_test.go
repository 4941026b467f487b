// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/uplink/lacptest"
	"github.com/zos-node/zos/qemu"
)

// TestBond: the two cards of a node are an LACP bond on a switch, which is all
// that leads to the ledger. It follows, also by each of its cables alone.
func TestBond(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP here, part of make test-boot")
	}
	w := newWorld(t)
	wires := newWires(t)
	a, b := wires.card("a"), wires.card("b")
	s := lacptest.New(wires.outside(), a, b)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	n := w.quickest(t, "bond", wires.with(qemu.Options{}), "--bond", "lacp")
	n.ports(2)
	for _, c := range []struct {
		id      string
		carries int // the other cable
	}{{"a", 1}, {"b", 0}} {
		n.plug(c.id, false)
		n.ports(1)
		before := s.Carried()
		n.time() // the agent starts anew and follows
		if after := s.Carried(); after[c.carries] == before[c.carries] || after[1-c.carries] != before[1-c.carries] {
			t.Errorf("cable %s is out: frames by port before %v, after %v", c.id, before, after)
		}
		n.plug(c.id, true)
		n.ports(2)
	}
	w.incident(t, "bond", "agent-ended")
}

func (n *node) plug(card string, in bool) {
	n.t.Helper()
	if err := n.Cable(deadline(n.t), "card-"+card, in); err != nil {
		n.t.Fatal(err)
	}
}

// ports waits until so many cards of the bond have agreed with the switch: they
// are of its active aggregate.
func (n *node) ports(want int) {
	n.t.Helper()
	var text string
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(500 * time.Millisecond) {
		text = n.file("/proc/net/bonding/uplink")
		if !strings.Contains(text, "IEEE 802.3ad") {
			n.t.Fatalf("no LACP:\n%s", text)
		}
		if strings.Contains(text, "Number of ports: "+string(rune('0'+want))+"\n") && strings.Contains(text, "Partner Mac Address: 02:00:00:00:5f:01\n") {
			return
		}
	}
	n.t.Fatalf("the bond has not %d ports:\n%s", want, text)
}
