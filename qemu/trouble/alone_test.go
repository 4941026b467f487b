// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"io"
	"regexp"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// gate is a cable that carries nothing until it is opened.
type gate struct {
	io.ReadWriteCloser
	open atomic.Bool
}

func (g *gate) Write(b []byte) (int, error) {
	if !g.open.Load() {
		return len(b), nil
	}
	return g.ReadWriteCloser.Write(b)
}

// rest is what a node does that no network is needed for, each by the line that
// says that it is done.
var rest = []struct{ what, line string }{
	{"drivers for guests", `msg=drivers part=init stage=late`},
	{"the watchdog", `msg="watchdog armed"`},
	{"programs of a test image", `msg="program started" .*program=/bin/fault`},
	{"the hypervisor, packet filter, guests of before", `msg=hypervisor part=agent`},
	{"the node's own updates", `msg="no updates from here`},
	{"the panel", `^  Press Enter for the menu`},
}

// nobodyThere: a cable on which nobody answers: no DHCP, no router, no ledger, no
// time server. No wait for any of them is in the way of the rest, each is named on
// the panel, and when somebody is there the node goes on by itself.
func nobodyThere(t *testing.T, w *world, name string) {
	wires := newWires(t)
	card, outside := &gate{ReadWriteCloser: wires.card("a")}, &gate{ReadWriteCloser: wires.outside()}
	relay(t, card, outside, 123)
	n := w.direct(t, name, nil, wires.with(qemu.Options{Cmdline: "no_timer_check"}), "--ntp", ledgerproc.Gateway)
	for _, r := range rest {
		n.says(0, r.line)
		t.Logf("%5.1f s  %s", time.Since(n.Started).Seconds(), r.what)
	}
	m := n.Console.Mark()
	if err := n.Type(""); err != nil {
		t.Fatal(err)
	}
	m = n.says(m, `What to do\?`)
	if err := n.Type("1"); err != nil {
		t.Fatal(err)
	}
	m = n.says(m, `^ {2}.{12}an address \(DHCP on eth0\)`)
	t.Logf("%5.1f s  the menu shows what is waited for", time.Since(n.Started).Seconds())
	n.do(map[string]any{"do": "list", "file": "/init"})
	for _, l := range n.Console.Lines(0) {
		if regexp.MustCompile(following + `|msg="the ledger is reached"|msg="clock set"|msg=address `).MatchString(l.Text) {
			t.Errorf("somebody answered: %s", l.Text)
		}
	}
	card.open.Store(true)
	outside.open.Store(true)
	n.says(m, following)
	t.Logf("%5.1f s  it follows the ledger", time.Since(n.Started).Seconds())
}
