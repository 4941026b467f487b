// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/qemu"
)

// clocks are machines whose real-time clock is wrong.
var clocks = []row{
	{"clock in 2100", "not believed", clockIn2100},
	{"clock years ahead", "set back by the ledger, record", clockAhead},
	{"clock years behind", "set by a time server, not below the floor", clockByNTP},
}

// TestClocks stands beside TestTrouble: nothing of it needs firmware or a screen.
func TestClocks(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP here, part of make test-boot")
	}
	w := newWorld(t)
	for i, r := range clocks {
		t.Run(strings.ReplaceAll(r.fault, " ", "-"), func(t *testing.T) {
			r.run(t, w, fmt.Sprintf("c%d", i))
		})
	}
}

// clockIn2100: a clock that no image can live to see is not believed.
func clockIn2100(t *testing.T, w *world, name string) {
	n := w.quickest(t, name, qemu.Options{Args: []string{"-rtc", "base=2100-01-01T00:00:00"}})
	// The kernel's driver makes 2063 of it: no better.
	if date := n.file("/sys/class/rtc/rtc0/date"); date < "2060" {
		t.Errorf("the machine's clock shows %s", date)
	}
	n.says(0, `the clock cannot be right`)
	n.timeIsRight()
}

// clockAhead: one that could be right is believed, until the ledger holds what
// the node has just said.
func clockAhead(t *testing.T, w *world, name string) {
	year := time.Now().AddDate(4, 0, 0).Format("2006")
	n := w.quickest(t, name, qemu.Options{Args: []string{"-rtc", "base=" + year + "-01-01T00:00:00"}})
	// That line is also the proof of the fault: the hardware's clock itself may be set right before anybody can read it.
	n.says(0, `msg="clock set back" .*from=`+year)
	n.timeIsRight()
	w.incident(t, name, "clock-ahead")
}

// quickest boots without firmware until the node follows the ledger.
func (w *world) quickest(t *testing.T, name string, o qemu.Options, more ...string) *node {
	t.Helper()
	n := w.direct(t, name, nil, o, more...)
	n.says(0, following)
	return n
}

// timeIsRight: a line that the node writes now carries the time of now.
func (n *node) timeIsRight() {
	n.t.Helper()
	if at := n.time(); time.Since(at).Abs() > time.Hour {
		n.t.Errorf("the node takes now for %s", at)
	}
}

// time is the node's, by the line that it writes when its agent has ended.
func (n *node) time() time.Time {
	n.t.Helper()
	m := n.Console.Mark()
	n.do(map[string]any{"do": "quit", "name": "agent"})
	line, _, m, err := n.Console.Expect(deadline(n.t), m, regexp.MustCompile(`^time=.*program ended; it is started again`))
	if err != nil {
		n.t.Fatal(err)
	}
	stamp, _, _ := strings.Cut(strings.TrimPrefix(line.Text, "time="), " ")
	at, err := time.Parse(time.RFC3339Nano, stamp)
	if err != nil {
		n.t.Errorf("the node takes now for %s: %v", stamp, err)
	}
	n.says(m, following)
	return at
}
