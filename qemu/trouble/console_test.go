// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"regexp"
	"strings"
	"testing"
	"time"
)

// menu: screen and serial line say who the node is and what it does, and have a
// menu, by keyboard and by serial line, whose reset asks for a name. It is the
// end of its machine: what starts from its disk then is another node.
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
	anew(t, n)
}

// anew: the first start after a reset makes the node's state, and with it another
// node, which enrols by the voucher that the first one used.
func anew(t *testing.T, n *node) {
	t.Helper()
	m := n.says(0, `msg="the node's state was made"`)
	before := n.w.enrolled(t, survivorName)
	if len(before) != 1 {
		t.Fatalf("the ledger has %v of that name", before)
	}
	n.says(m, `id="?`+regexp.QuoteMeta(before[0]))
	n = n.again()
	m = n.says(0, `msg="the node's state`)
	var after []string
	for ctx := deadline(t); ctx.Err() == nil && len(after) < 2; time.Sleep(time.Second) {
		after = n.w.enrolled(t, survivorName)
	}
	if len(after) != 2 || after[0] != before[0] || after[1] == before[0] {
		t.Fatalf("the ledger has %v of that name, before the reset %v", after, before)
	}
	n.says(m, `id="?`+regexp.QuoteMeta(after[1]))
	for _, l := range n.Console.Lines(0) {
		if strings.Contains(l.Text, "the node's state is open") {
			t.Errorf("the state outlived the reset: %s", l.Text)
		}
	}
	t.Logf("%s was %s and is %s", survivorName, before[0], after[1])
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
