// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// TestUpdateSecured: updates of a node whose firmware starts signed images only, and
// whose state is sealed to a TPM. What is not signed, and what the state would not
// open under (measured for by another maker, or by nobody), is not even put in place.
// What it does not open under for all that (on trial the machine has no TPM) goes back at
// once. One that starts and works, but never becomes healthy (its ledger is not where it
// looks for it), goes back after the trial's ten minutes. The ledger hears why each time.
// A signed one stays, and is the same node.
func TestUpdateSecured(t *testing.T) {
	whole(t)
	if _, _, err := qemu.Firmware("amd64", true); err != nil {
		t.Skipf("SKIP updates under Secure Boot: %v", err)
	}
	if _, err := exec.LookPath("swtpm"); err != nil {
		t.Skipf("SKIP updates of a sealed node: %v", err)
	}
	_, maker := keyFolder(t)
	_, other := keyFolder(t)
	f := newFleet(t, maker)
	f.tpm = filepath.Join(t.TempDir(), "tpm")
	f.on()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := f.m.Wait(ctx); err != nil { // the firmware took the keys
		t.Fatal(err)
	}
	f.off()
	f.on()
	f.secured("1.0")
	node := f.sealed("made")
	says(t, f.m, `msg="following the ledger"`)

	for _, c := range []struct {
		version string
		uki     []byte
		says    string
	}{
		{"1.1", f.build("1.1", nil), "not signed"},
		{"1.2", f.enrolled(f.buildBy(other.PCR, "1.2", nil)), "would stay locked under the image: sealed for images of another maker"},
		{"1.3", f.enrolled(f.buildBy(nil, "1.3", nil)), "would stay locked under the image: this image carries no signed measurement"},
	} {
		before := f.starts
		f.publish(c.version, c.uki)
		if u := f.until("failed"); u.Running != "1.0" || !strings.Contains(u.Reason, c.says) || f.starts != before {
			t.Errorf("%s: %+v after %d starts, want %q", c.version, u, f.starts-before, c.says)
		}
	}
	f.lockedOut("1.4", node)
	f.release("1.5", nil)
	if u := f.until("blessed"); u.Running != "1.5" {
		t.Errorf("%+v", u)
	}
	f.secured("1.5")
	f.same("1.5", node)

	before := f.starts
	astray := bytes.ReplaceAll(f.l.Seed("edge"), []byte(f.l.Inside()), []byte("http://"+ledgerproc.Gateway+":9"))
	f.release("1.6", func(_ *image.UKI, more *image.Tree) {
		more.File(strings.TrimPrefix(seed.InitramfsPath, "/"), 0o600, astray)
	})
	if u := f.until("rolled-back"); u.Running != "1.5" || !strings.Contains(u.Reason, "not healthy after 10m0s: the ledger is not followed") || f.starts != before+2 {
		t.Errorf("%+v after %d starts", u, f.starts-before)
	}
	f.secured("1.5")
	f.same("1.5", node)
	f.off()
	f.slots("zos-1.5.efi")
}

// lockedOut takes the TPM away for the trial of a version.
func (f *fleet) lockedOut(version, node string) {
	f.t.Helper()
	before, tpm := f.starts, f.tpm
	f.release(version, nil)
	says(f.t, f.m, `msg="the machine starts again"`)
	f.down()
	f.tpm = ""
	f.on()
	says(f.t, f.m, `THE NODE'S STATE IS LOCKED`)
	f.down()
	f.tpm = tpm
	f.on()
	const want = "started once and was not found healthy; the last that its agent noted: the node's state is locked: this machine has no TPM 2.0"
	if u := f.until("rolled-back"); u.Running != "1.0" || !strings.Contains(u.Reason, want) || f.starts != before+2 {
		f.t.Errorf("%+v after %d starts, want %q", u, f.starts-before, want)
	}
	f.same("1.0", node)
}

// down waits until the machine has gone down by itself.
func (f *fleet) down() {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := f.m.Wait(ctx); err != nil {
		f.t.Fatalf("%v\n%s", err, f.m.Console.Tail(40))
	}
	f.off()
}

// sealed wants the state to be so, made or open, and says which node this is.
func (f *fleet) sealed(word string) string {
	f.t.Helper()
	said := says(f.t, f.m, `the node's state (?:was made|is open)" .*key=(\S+)`)
	if !strings.Contains(said[0], word) || said[1] != "sealed" {
		f.t.Errorf("it says %q, want %s and sealed", said[0], word)
	}
	return says(f.t, f.m, `msg=node .*id=(\S+)`)[1]
}

// same wants the running version to have opened the state, and to be the same node.
func (f *fleet) same(version, node string) {
	f.t.Helper()
	if got := f.sealed("open"); got != node {
		f.t.Errorf("%s is node %s, was %s", version, got, node)
	}
}

// secured wants the running image to be of a version, and started by firmware
// that enforces signatures.
func (f *fleet) secured(version string) {
	f.t.Helper()
	if said := says(f.t, f.m, `msg="boot trust" .*secureBoot=(\S+)`); said[1] != "on" {
		f.t.Errorf("%s: Secure Boot is %s", version, said[1])
	}
	says(f.t, f.m, `zos `+strings.ReplaceAll(version, ".", `\.`)+` `)
}
