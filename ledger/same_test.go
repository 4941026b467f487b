// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// TestTwoNodesSayTheSame: what one says is not said by the other, although no
// byte of the payloads differs.
func TestTwoNodesSayTheSame(t *testing.T) {
	l := ledgertest.New(t)
	nodes, id := ranked(t, l, 3, func(d *spec.Deployment) { d.Placement.Replicas = 2 })
	a, b := nodes[0].Claim(id), nodes[1].Claim(id)
	l.Must(a)
	l.Must(b)
	if n := len(l.State().Claims(id)); n != 2 {
		t.Errorf("%d claims, want 2", n)
	}
	seen := ledger.Incident{Claim: -1, Kind: "chunk-mismatch", Detail: "x", Acted: l.Acted()}
	x, y := nodes[0].Entry(ledger.TypeIncident, seen), nodes[1].Entry(ledger.TypeIncident, seen)
	l.Must(x)
	l.Must(y)
	if n := len(l.State().Incidents()); n != 2 {
		t.Errorf("%d incidents, want 2", n)
	}
	wants(t, l.Refuse(y), "the same is on the ledger already")
}

// TestARepeatNeedsItsSigners: that a payload is on the ledger is no receipt for
// an envelope that the ledger would not have taken.
func TestARepeatNeedsItsSigners(t *testing.T) {
	l := ledgertest.New(t)
	raw := l.Register("shop", 1, nil)
	index := l.Must(raw)
	env, err := sign.DecodeEnvelope(raw)
	if err != nil {
		t.Fatal(err)
	}
	with := func(s ...sign.Signature) []byte {
		other := sign.Envelope{PayloadType: env.PayloadType, Payload: env.Payload, Signatures: s}
		b, err := other.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	if len(env.Signatures) < 2 {
		t.Fatalf("%d signatures", len(env.Signatures))
	}
	wants(t, l.Refuse(with([]sign.Signature{}...)), "signatures")
	wants(t, l.Refuse(with(env.Signatures[1:]...)), "signatures")
	wants(t, l.Refuse(with(append(append([]sign.Signature{}, env.Signatures[1:]...), env.Signatures[0])...)), "the same is on the ledger already")
	broken := append([]sign.Signature{}, env.Signatures...)
	broken[0].Sig = append([]byte{}, broken[0].Sig...)
	broken[0].Sig[len(broken[0].Sig)-1] ^= 1
	var refused *ledger.Refused
	if err := l.State().Check(l.NowMs(), with(broken...)); !errors.As(err, &refused) || refused.Index >= 0 {
		t.Errorf("a wrong signature under a payload that is entry %d: %v", index, err)
	}
}
