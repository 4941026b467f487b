// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"strings"
	"testing"
)

// menu: screen and serial line say who the node is and what it does, and have a
// menu, by keyboard and by serial line, whose reset asks for a name. It is the
// end of its machine.
func menu(t *testing.T, n *node, font letters) {
	name := survivorName
	facts := []string{"zos  " + name, "SHA256:", "eth0: 10.0.2.15/24", "entries, ledger time", "guests", "waits for", "no TPM", "Press Enter for the menu."}
	n.shows(font, facts...)
	m := n.says(0, `^  zos  `+name)
	for _, f := range facts[1:] {
		n.says(0, f)
	}

	typed := func(line, answer string) {
		t.Helper()
		m = n.Console.Mark()
		if err := n.Type(line); err != nil {
			t.Fatal(err)
		}
		m = n.says(m, answer)
	}
	typed("", `What to do\?`)
	typed("2", `What recovery needs`)
	n.says(m, `keeps +the node's state on its disk, the last words of earlier boots`)
	typed("/bin/sh", `What to do\?`)
	typed("5", `To go on, type:  reset `+name)
	typed("reset somebody", `Nothing was reset`)
	typed("0", `The menu is closed`)

	press := func(line string, texts ...string) {
		t.Helper()
		if err := n.Press(deadline(t), keys(line)...); err != nil {
			t.Fatal(err)
		}
		if len(texts) > 0 {
			n.shows(font, texts...)
		}
	}
	press("", "What to do?", "5  reset: forget all")
	press("2", "What recovery needs", "crash store")
	press("5", "To go on, type:  reset "+name)
	m = n.Console.Mark()
	press("reset " + name)
	m = n.says(m, `asked to end at the console.*console=/dev/tty2.*what=reset`)
	m = n.says(m, `msg=reset.*forgot="the node's state on its disk"`)
	m = n.says(m, `msg=reset.*forgot="the last words of earlier boots"`)
	n.says(m, `msg="the machine ends now".*how=reboot`)
	if err := n.Wait(deadline(t)); err != nil {
		t.Fatal(err)
	}

	// What was written to the serial line by itself stays readable.
	panels := 0
	for _, l := range n.Console.Lines(0) {
		if strings.HasPrefix(l.Text, "  zos  ") {
			panels++
		}
	}
	t.Logf("%d panels on the serial line", panels)
}

// keys are those of a line, with Enter at its end.
func keys(line string) []string {
	var all []string
	for _, r := range line {
		if r == ' ' {
			all = append(all, "spc")
			continue
		}
		all = append(all, string(r))
	}
	return append(all, "ret")
}
