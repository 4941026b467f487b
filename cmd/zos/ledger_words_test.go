// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestListenSaysWhy: what is in the way of a port differs, and so does what to do.
func TestListenSaysWhy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for address, want := range map[string]string{l.Addr().String(): "another program, perhaps another ledger, listens there; --metrics takes", "192.0.2.1:4711": "this machine has no such address; --metrics wants"} {
		got, err := listen("metrics", address)
		if err == nil {
			got.Close()
			t.Errorf("%s could be listened on", address)
		} else if !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), address) {
			t.Errorf("%s: %v, want %q", address, err, want)
		}
	}
}

// TestStanding: of a frozen log it is not said that all is well.
func TestStanding(t *testing.T) {
	l := ledgertest.New(t)
	n := l.Join("n", 4096)
	l.Must(n.Claim(l.Must(l.Register("shop", 1, nil))))
	s := l.State()
	if all, frozen := standing(s, time.UnixMilli(s.TimeMs())); all != "all is well" || frozen != "" {
		t.Errorf("%q, %q", all, frozen)
	}
	all, frozen := standing(s, time.UnixMilli(s.TimeMs()).Add(time.Hour))
	contains(t, all, "every entry is right, but the ledger stands still", "a block was due at", "59m45s ago by this clock", "ask another ledger")
	if strings.Contains(all, "well") || frozen == "" {
		t.Errorf("%q, %q", all, frozen)
	}
}
