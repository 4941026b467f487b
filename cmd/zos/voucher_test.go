// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

func TestExpiry(t *testing.T) {
	now := time.Date(2027, 1, 31, 12, 0, 0, 0, time.UTC)
	for text, want := range map[string]string{
		"30d": "2027-03-02T12:00:00Z", "1d": "2027-02-01T12:00:00Z", "90m": "2027-01-31T13:30:00Z",
		"2027-02-01": "2027-02-01T00:00:00Z", "2027-02-01T01:00:00+02:00": "2027-01-31T23:00:00Z",
	} {
		if got, err := expiry(text, now); err != nil || ledger.Moment(got) != want {
			t.Errorf("%s: %s, %v, want %s", text, ledger.Moment(got), err, want)
		}
	}
	if got, err := expiry("", now); err != nil || got != 0 {
		t.Errorf("none: %d, %v", got, err)
	}
	for text, want := range map[string]string{
		"0d": "is past", "-1h": "is past", "2027-01-31": "is past", "2027-01-31T12:00:00Z": "is past",
		"d": "whole number of days", "-3d": "whole number of days", "1.5d": "whole number of days", "9999999999d": "whole number of days", "tomorrow": "want a length", "2027-02-30": "want a length",
	} {
		if got, err := expiry(text, now); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %d, %v, want %q", text, got, err, want)
		}
	}
}

// TestVoucherWithAnEnd: what the tool makes is what the ledger reads, with an
// end and without; a seed with one that is over is not made without a word.
func TestVoucherWithAnEnd(t *testing.T) {
	dir := t.TempDir()
	key := keyFile(t, dir, "op")
	for name, c := range map[string]struct {
		args []string
		kind string
		ends bool
		says string
	}{
		"ever":  {nil, ledger.TypeVoucher, false, "good for 1 nodes, is in"},
		"month": {[]string{"--expires", "30d"}, ledger.TypeExpiringVoucher, true, "good for 1 nodes until 20"},
	} {
		file := filepath.Join(dir, name)
		out, _ := zos(t, exitOK, append([]string{"ledger", "voucher", "--key", key, "-o", file}, c.args...)...)
		contains(t, out, c.says)
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		env, err := sign.DecodeEnvelope(b)
		if err != nil {
			t.Fatal(err)
		}
		v, err := ledger.OpenVoucher(env)
		if err != nil || env.PayloadType != c.kind || (v.ExpiresMs != 0) != c.ends {
			t.Errorf("%s: %s, %+v, %v", name, env.PayloadType, v, err)
		}
		if left := time.Until(time.UnixMilli(v.ExpiresMs)); c.ends && (left < 29*24*time.Hour || left > 31*24*time.Hour) {
			t.Errorf("%s: ends in %s", name, left)
		}
		if _, said := zos(t, exitOK, "node", "seed", "--name", "n1", "--ledger", "http://x:1", "--voucher", file, "-o", file+".seed"); said != "" {
			t.Errorf("%s: %s", name, said)
		}
		// Somebody else may have to sign it as well.
		zos(t, exitOK, "sign", "--key", keyFile(t, dir, name+"2"), "--role", "operator", file, "-o", filepath.Join(dir, name+".both"))
	}
	past := file(t, "past", []byte(`{"id":"v","uses":1,"key":"`+publicKey(t, filepath.Join(dir, "month.key"))+`","labels":{},"expiresMs":1000}`))
	zos(t, exitOK, "sign", "--type", "expiring-voucher", "--key", key, "--role", "operator", past, "-o", past+".signed")
	_, said := zos(t, exitOK, "node", "seed", "--name", "n1", "--ledger", "http://x:1", "--voucher", past+".signed", "--voucher-key", filepath.Join(dir, "month.key"), "-o", past+".seed")
	contains(t, said, "expired at 1970-01-01T00:00:01Z", "zos ledger voucher")
}

func publicKey(t *testing.T, file string) string {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s, err := sign.ParseSigner(b)
	if err != nil {
		t.Fatal(err)
	}
	return s.PublicKey()
}
