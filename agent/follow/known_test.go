// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// TestLeftOutside: a node that the ledger does not enrol has the reason, and
// what to do, on its console, once in the journal and for as long as it lasts
// among what it waits for.
func TestLeftOutside(t *testing.T) {
	for name, c := range map[string]struct {
		voucher func(h *host) sign.Envelope
		says    string
	}{
		"used up": {func(h *host) sign.Envelope {
			v := h.log.Voucher("one", 1, nil)
			h.log.Must(h.log.NewNode("first").EnrolEntry(v))
			return v
		}, "payload.voucher.payload.uses: is 1, and all are used up"},
		"expired": {func(h *host) sign.Envelope { return h.log.ExpiringVoucher("old", 9, h.log.NowMs()-1) },
			"payload.voucher.payload.expiresMs: is 2049-03-22T04:26:39Z: the voucher has expired"},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 1)
			h.voucher = c.voucher(h)
			h.boot()
			left := func(w string) bool {
				return strings.HasPrefix(w, "the ledger to enrol this node ("+c.says) && strings.Contains(w, "zos ledger voucher") && strings.Contains(w, "zos node seed")
			}
			h.until("it waits to be enrolled, and says why", func(*ledger.State) bool { return slices.ContainsFunc(h.board.Now(time.Now()), left) })
			if n := h.console.count(`msg="the ledger does not enrol this node"`); n != 1 || h.console.count(`do="make another voucher`) != 1 {
				t.Errorf("said %d times", n)
			}
			h.halt()
			// With another voucher it is one like all others.
			h.voucher = h.log.Voucher("two", 1, nil)
			h.boot()
			h.until("enrolled", func(s *ledger.State) bool { return s.Node(h.key.KeyID()) != nil })
		})
	}
}

// TestInsideAgain: what the panel said is gone with its reason.
func TestInsideAgain(t *testing.T) {
	board, console := wait.NewBoard(), &buffer{}
	f := New(t.Context(), Config{World: &deploy.World{Node: "SHA256:none"}, Log: slog.New(board.Handler(slog.NewTextHandler(console, nil)))})
	now := time.Unix(1000, 0)
	f.notEnrolled(now, errors.New("no way"))
	f.notEnrolled(now.Add(SyncEvery), errors.New("no way"))
	now = now.Add(2 * SyncEvery)
	if got := board.Now(now); len(got) != 1 || !strings.Contains(got[0], "no way; it is tried again") || !strings.HasSuffix(got[0], ", for 2s") {
		t.Errorf("%q", got)
	}
	if n := console.count("level=WARN"); n != 1 {
		t.Errorf("said %d times", n)
	}
	// It is looked at between two tries as well, so that it stays on the panel.
	f.enrolAt = now.Add(askAgain)
	for range 10 {
		now = now.Add(SyncEvery)
		if f.enrolled(t.Context(), ledger.NewState(), now) || len(board.Now(now)) != 1 {
			t.Fatalf("between two tries: %q", board.Now(now))
		}
	}
	f.inside()
	if got := board.Now(now); len(got) != 0 {
		t.Errorf("after it: %q", got)
	}
	f.notEnrolled(now, errors.New("no way"))
	if n := console.count("level=WARN"); n != 2 {
		t.Errorf("the second time is not said: %d", n)
	}
}

func TestEnrolAdvice(t *testing.T) {
	for want, err := range map[string]error{
		"zos ledger voucher":    fmt.Errorf("x: %w", &ledger.Refused{Field: "payload.voucher.payload.uses"}),
		"zos node capacity":     &ledger.Refused{Field: "payload.key"},
		"tried again by itself": errors.New("connection refused"),
	} {
		if got := enrolAdvice(err); !strings.Contains(got, want) {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}

// TestSame: an offer that came back from the ledger is the one that was made,
// and every change of it is a new one.
func TestSame(t *testing.T) {
	made := func() ledger.Capacity {
		return ledger.Capacity{Arch: "amd64", MemoryMiB: 1, Addresses: []string{}, Boot: ledger.Boot{Key: "sealed", Lacks: []string{}}}
	}
	back := made()
	back.Addresses, back.Boot.Lacks, back.Acted = nil, nil, ledger.Acted{Size: 7}
	if !same(back, made()) {
		t.Error("it is published again for ever")
	}
	for name, change := range map[string]func(*ledger.Capacity){
		"memory": func(c *ledger.Capacity) { c.MemoryMiB = 2 }, "address": func(c *ledger.Capacity) { c.Addresses = []string{"192.0.2.1"} },
		"key": func(c *ledger.Capacity) { c.Boot.Key = "clear" }, "lacks": func(c *ledger.Capacity) { c.Boot.Lacks = []string{"a TPM"} },
	} {
		c := made()
		if change(&c); same(made(), c) {
			t.Errorf("a change of its %s is not published", name)
		}
	}
}
