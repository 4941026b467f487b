// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/qemu"
)

// TestNoClock: a machine without a real-time clock starts at its floor, and
// follows the ledger, which sets it right. QEMU's arm64 machine is one when the
// clock is taken out of the device tree that the kernel is given.
func TestNoClock(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP here, part of make test-boot")
	}
	const emulator = "qemu-system-aarch64"
	if _, err := exec.LookPath(emulator); err != nil {
		t.Skipf("SKIP %v: install Debian's package qemu-system-arm", err)
	}
	w := newWorldOf(t, "qemu-arm64")
	o := qemu.Options{Arch: "arm64", Accel: qemu.ArmTCG}
	tree := w.File("machine.dtb")
	dump := slices.Clone(qemu.ArmTCG.Args)
	i := slices.Index(dump, "-M")
	dump[i+1] += ",dumpdtb=" + tree
	if out, err := exec.Command(emulator, append(dump, "-m", "1024", "-nodefaults", "-display", "none")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	b, err := os.ReadFile(tree)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = without(b, "pl031"); err != nil {
		t.Fatal(err)
	}
	w.Write("noclock.dtb", b)
	o.Args = []string{"-dtb", w.File("noclock.dtb")}
	n := w.quickest(t, "noclock", o)
	if rtc := n.failing(map[string]any{"do": "read", "file": "/sys/class/rtc/rtc0/date"}); !strings.Contains(rtc, "no such file") {
		t.Errorf("there is a clock: %s", rtc)
	}
	n.says(0, `msg="clock set" .*from=1970\S+ .*source=(kernel|image|program)`)
	n.says(0, `msg="clock set forward" .*source=ledger`)
	n.timeIsRight()
}

// failing is what the fault program says to what cannot be done.
func (n *node) failing(command map[string]any) string {
	n.t.Helper()
	var reply map[string]any
	err := n.Fault(deadline(n.t), command, &reply)
	if err == nil {
		return fmt.Sprint(reply)
	}
	return err.Error()
}

// without takes the nodes of a name out of a flattened device tree (Devicetree
// Specification 0.4, chapter 5), where they stand: what they were made of is left
// as tokens that mean nothing. The room that QEMU leaves at its end goes too: it
// doubles what it is given, and a kernel takes no more than 2 MiB.
func without(tree []byte, name string) ([]byte, error) {
	const magic, begin, end, property, nop, last = 0xd00dfeed, 1, 2, 3, 4, 9
	word := func(at int) int { return int(binary.BigEndian.Uint32(tree[at:])) }
	if len(tree) < 40 || word(0) != magic || word(4) > len(tree) {
		return nil, errors.New("no device tree")
	}
	found, depth, inside := 0, 0, 0 // inside: depth of the node that goes
	for at := word(8); at+4 <= word(4); {
		token, next := word(at), at+4
		switch token {
		case begin:
			depth++
			n := bytes.IndexByte(tree[next:], 0)
			if n < 0 {
				return nil, errors.New("device tree: a name has no end")
			}
			if strings.HasPrefix(string(tree[next:next+n]), name+"@") && inside == 0 {
				inside = depth
				found++
			}
			next += (n + 4) &^ 3
		case property:
			next += 8 + (word(next)+3)&^3
		case last:
			if found == 0 {
				return nil, fmt.Errorf("device tree: no node %s", name)
			}
			const size, structure, names, sizeOfNames, sizeOfStructure = 4, 8, 12, 32, 36
			whole := max(word(structure)+word(sizeOfStructure), word(names)+word(sizeOfNames))
			binary.BigEndian.PutUint32(tree[size:], uint32(whole))
			return tree[:whole], nil
		case end, nop:
		default:
			return nil, fmt.Errorf("device tree: token %d at %d", token, at)
		}
		if next > len(tree) {
			break
		}
		gone := inside > 0
		if token == end {
			if depth == inside {
				inside = 0
			}
			depth--
		}
		for ; gone && at < next; at += 4 {
			binary.BigEndian.PutUint32(tree[at:], nop)
		}
		at = next
	}
	return nil, errors.New("device tree: it has no end")
}
