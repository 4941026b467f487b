// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"bytes"
	"context"
	"os"
	"regexp"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/sign"
)

// voucherUsedUp: whoever had the voucher's only use was faster.
func voucherUsedUp(t *testing.T, w *world, name string) {
	voucher := w.File(name + ".voucher")
	w.Zos("ledger", "voucher", "--key", w.File("operator"), "--root", w.Root, "--uses", "1", "-o", voucher)
	w.enrol(t, "faster", voucher)
	// A panel breaks its lines after so many letters.
	w.outside(t, name, voucher, "the ledger to enrol this node (payload.voucher.payload.uses: is", "1, and all are used up; make another voucher (zos ledger", "voucher) and give the node a seed with it (zos node seed))")
}

// voucherExpired: it was good when the seed was made, and is over when the node
// has booted.
func voucherExpired(t *testing.T, w *world, name string) {
	voucher := w.File(name + ".voucher")
	w.Zos("ledger", "voucher", "--key", w.File("operator"), "--root", w.Root, "--uses", "9", "--expires", "1s", "-o", voucher)
	b, err := os.ReadFile(voucher)
	if err != nil {
		t.Fatal(err)
	}
	v, err := ledger.OpenVoucher(envelope(t, b))
	if err != nil {
		t.Fatal(err)
	}
	w.outside(t, name, voucher, "the ledger to enrol this node", "(payload.voucher.payload.expiresMs: is "+ledger.Moment(v.ExpiresMs)+": the",
		"voucher has expired by the ledger's time; make another voucher", "(zos ledger voucher) and give the node a seed with it (zos node")
}

// outside boots a node that the ledger does not let in: its serial line has a
// warning, and a panel that says line by line why it waits and what to do. The
// screen shows the same panel, which noSerialPort reads.
func (w *world) outside(t *testing.T, name, voucher string, panel ...string) {
	t.Helper()
	// A loaded machine does not give the kernel the ticks that it counts at first.
	n := w.quickest(t, name, qemu.Options{Cmdline: "no_timer_check"}, "--voucher", voucher)
	n.says(0, `msg="the ledger does not enrol this node".*do="make another voucher \(zos ledger voucher\)`)
	m := n.says(0, `^  zos  `+name)
	for _, text := range panel {
		m = n.says(m, "^ {2}.{12}"+regexp.QuoteMeta(text))
	}
	for _, known := range w.state(t, name).Nodes() {
		if known.Name == name {
			t.Errorf("%s has enrolled: %+v", name, known)
		}
	}
}

// enrol uses a voucher for a node that is none.
func (w *world) enrol(t *testing.T, name, voucher string) {
	t.Helper()
	b, err := os.ReadFile(voucher)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(voucher + ".key")
	if err != nil {
		t.Fatal(err)
	}
	own, err := sign.ParseSigner(secret)
	if err != nil {
		t.Fatal(err)
	}
	key, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	raw, err := ledger.NewEntry(ledger.TypeEnrol, ledger.Enrol{Name: name, Key: key.PublicKey(), Voucher: *envelope(t, b), Image: "none", Acted: w.state(t, name).Acted()}, key, own)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if _, err := ledger.Submit(ctx, w.URL, nil, raw); err != nil {
		t.Fatal(err)
	}
}

func envelope(t *testing.T, b []byte) *sign.Envelope {
	t.Helper()
	env, err := sign.DecodeEnvelope(bytes.TrimSpace(b))
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// state is the ledger's, as a client of its own sees it now.
func (w *world) state(t *testing.T, client string) *ledger.State {
	t.Helper()
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: w.root, Ledgers: []string{w.URL}, StateFile: w.File(client + ".client")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(context.Background()); err != nil {
		t.Fatal(err)
	}
	return c.State()
}
