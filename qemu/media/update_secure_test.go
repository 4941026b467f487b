// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// TestUpdateSecured: updates of a node whose firmware starts signed images only.
// One that is not signed is not even put in place. One that starts and works,
// but never becomes healthy (its ledger is not where it looks for it), goes back after the
// trial's ten minutes, and the ledger hears why. A signed one stays.
func TestUpdateSecured(t *testing.T) {
	whole(t)
	if _, _, err := qemu.Firmware("amd64", true); err != nil {
		t.Skipf("SKIP updates under Secure Boot: %v", err)
	}
	_, maker := keyFolder(t)
	f := newFleet(t, maker)
	f.on()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	if err := f.m.Wait(ctx); err != nil { // the firmware took the keys
		t.Fatal(err)
	}
	f.off()
	f.on()
	f.secured("1.0")
	says(t, f.m, `msg="following the ledger"`)

	before := f.starts
	f.publish("1.1", f.build("1.1", nil))
	if u := f.until("failed"); u.Running != "1.0" || !strings.Contains(u.Reason, "not signed") || f.starts != before {
		t.Errorf("%+v after %d starts", u, f.starts-before)
	}
	astray := bytes.ReplaceAll(f.l.Seed("edge"), []byte(f.l.Inside()), []byte("http://"+ledgerproc.Gateway+":9"))
	f.release("1.2", func(_ *image.UKI, more *image.Tree) {
		more.File(strings.TrimPrefix(seed.InitramfsPath, "/"), 0o600, astray)
	})
	if u := f.until("rolled-back"); u.Running != "1.0" || !strings.Contains(u.Reason, "not healthy after 10m0s: the ledger is not followed") || f.starts != before+2 {
		t.Errorf("%+v after %d starts", u, f.starts-before)
	}
	f.secured("1.0")
	f.release("1.3", nil)
	if u := f.until("blessed"); u.Running != "1.3" {
		t.Errorf("%+v", u)
	}
	f.secured("1.3")
	f.off()
	f.slots("zos-1.0.efi", "zos-1.3.efi")
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
