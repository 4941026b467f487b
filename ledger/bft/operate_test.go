// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"bytes"
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// scenario runs one row of the table.
type scenario func(name string, f func(t *testing.T) (injected, came string))

// healthy waits until every server says that it is.
func (c *cluster) healthy() {
	c.t.Helper()
	for i, s := range c.srv {
		waitFor(c.t, fmt.Sprintf("validator %d to be healthy", i+1), func() bool {
			resp, err := http.Get(s.url + "/healthz")
			if err != nil {
				return false
			}
			resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}

// operate is what operators do to a running ledger of four.
func (c *cluster) operate(run scenario) {
	run("upgrade of all four, one at a time, under load", func(t *testing.T) (string, string) {
		// Another release that decides the same.
		exe := program(t, edit{"engine.go", `o.Log.Info("folded the log",`, `o.Log.Info("folded the log, as the new release says",`})
		stop := c.load(4)
		for i := range c.srv {
			if err := c.srv[i].cmd.Process.Signal(syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			c.srv[i].wait()
			if !strings.Contains(c.srv[i].err.String(), "ended by itself") {
				t.Errorf("validator %d did not end in order: %s", i+1, c.srv[i].err)
			}
			c.srv[i] = startExe(outer{t, c}, exe, c.dirs[i], "", "", "2.0.0")
			c.healthy() // as the runbook says
		}
		n := stop()
		for i, s := range c.srv {
			c.put(i, c.entry())
			if said := s.err.String(); !strings.Contains(said, "version=2.0.0") || !strings.Contains(said, "as the new release says") {
				t.Errorf("validator %d does not run the new version", i+1)
			}
		}
		if n == 0 {
			t.Error("no receipt during the upgrade")
		}
		return "4 processes of another program, version 2.0.0", fmt.Sprintf("%d receipts under load meanwhile", n)
	})
	run("a disk lost under load, restored from a backup made while it ran", func(t *testing.T) (string, string) {
		stop := c.load(4)
		saved, info := backup(t, c.dirs[3])
		c.srv[3].kill(t)
		n := stop()
		if err := os.RemoveAll(c.dirs[3]); err != nil {
			t.Fatal(err)
		}
		c.put(0, c.entry())
		// The newest block of the others, as `zos ledger restore --ledger` asks for it.
		height := client(t, c.dirs[0], c.srv[0].url, c.srv[1].url, c.srv[2].url).NewestBlock(t.Context())
		begin := time.Now()
		if _, err := Restore(t.Context(), bytes.NewReader(saved), c.dirs[3], height); err != nil {
			t.Fatal(err)
		}
		c.srv[3] = startBad(outer{t, c}, c.dirs[3], "", "")
		c.put(3, c.entry())
		return fmt.Sprintf("folder removed; backup of %d entries", info.Entries), fmt.Sprintf("%d receipts under load; it is back %s after the restore began", n, time.Since(begin).Round(time.Millisecond))
	})
}

// members has the first n servers be the validators, if they are not.
func (c *cluster) members(n int) {
	c.t.Helper()
	cl := client(c.t, c.dirs[0], c.srv[0].url) // knows the first root alone
	waitFor(c.t, "the ledger", func() bool { return cl.Sync(c.t.Context()) == nil })
	if len(cl.State().Root().Log.Validators) == n {
		return
	}
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	rotation := c.rotation(cl.State(), all...)
	waitFor(c.t, fmt.Sprintf("the rotation to %d validators", n), func() bool { _, err := c.try(0, rotation); return err == nil })
	for i := range c.srv {
		c.put(i, c.entry())
	}
}

// seven is a ledger of four validators with three servers that follow it.
func seven(t *testing.T, run scenario, c *cluster) {
	run("from four to seven, by a root that the old one signs, under load", func(t *testing.T) (string, string) {
		cl := client(t, c.dirs[0], c.srv[0].url) // knows the first root alone
		waitFor(t, "the ledger", func() bool { return cl.Sync(t.Context()) == nil })
		if n := len(cl.State().Root().Log.Validators); n != 4 {
			t.Errorf("%d validators before", n)
		}
		stop := c.load(2)
		var raw []byte
		waitFor(t, "the rotation", func() bool {
			if raw == nil && cl.Sync(t.Context()) == nil {
				raw = c.rotation(cl.State(), 0, 1, 2, 3, 4, 5, 6)
			}
			_, err := c.try(0, raw)
			return err == nil
		})
		for i := range 7 {
			c.put(i, c.entry())
		}
		n := stop()
		if err := cl.Sync(t.Context()); err != nil || len(cl.State().Root().Log.Validators) != 7 || len(cl.Checkpoint().Cosigners) < 5 {
			t.Errorf("%d validators, cosigners %v, %v", len(cl.State().Root().Log.Validators), cl.Checkpoint().Cosigners, err)
		}
		return fmt.Sprintf("root version %d", cl.State().Root().Version), fmt.Sprintf("%d receipts under load meanwhile; %d of 7 cosign", n, len(cl.Checkpoint().Cosigners))
	})
	run("seven validators, two killed, then a third", func(t *testing.T) (string, string) {
		c.members(7)
		var slowest time.Duration
		for i := range 7 {
			slowest = max(slowest, c.put(i, c.entry()))
		}
		c.srv[5].kill(t)
		c.srv[6].kill(t)
		for i := range 10 {
			slowest = max(slowest, c.put(i%5, c.entry()))
		}
		c.srv[4].kill(t)
		c.halted(0, "4 of 7 validators answer", "/v5", "/v6", "/v7")
		for _, i := range []int{4, 5, 6} {
			c.srv[i] = startBad(outer{t, c}, c.dirs[i], "", "")
		}
		begin := time.Now()
		c.put(4, c.entry())
		return "processes gone", fmt.Sprintf("goes on without two (slowest of 17 entries %s), halts without three and names them; first entry %s after their start", slowest.Round(time.Millisecond), time.Since(begin).Round(time.Millisecond))
	})
	run("from seven to four, by a root that the old one signs", func(t *testing.T) (string, string) {
		c.members(7)
		cl := client(t, c.dirs[0], c.srv[0].url)
		waitFor(t, "the ledger", func() bool { return cl.Sync(t.Context()) == nil })
		rotation := c.rotation(cl.State(), 0, 1, 2, 3)
		waitFor(t, "the rotation", func() bool { _, err := c.try(0, rotation); return err == nil })
		for i := range 7 {
			c.put(i, c.entry()) // also by those that only follow now
		}
		if err := cl.Sync(t.Context()); err != nil || len(cl.State().Root().Log.Validators) != 4 {
			t.Errorf("%d validators, %v", len(cl.State().Root().Log.Validators), err)
		}
		return fmt.Sprintf("root version %d", cl.State().Root().Version), "4 of 7 go on, the others follow"
	})
	run("a halt of an hour of ledger time, with a lease", func(t *testing.T) (string, string) {
		n := c.log.NewNode("n")
		cl := client(t, c.dirs[0], c.srv[0].url)
		acted := func() ledger.Acted {
			waitFor(t, "the ledger", func() bool { return cl.Sync(t.Context()) == nil })
			return cl.Acted()
		}
		submit := func(entryType string, payload any, s ...signer) ledger.Receipt {
			b, err := ledger.NewEntry(entryType, payload, s...)
			if err != nil {
				t.Fatal(err)
			}
			var r ledger.Receipt
			waitFor(t, "a receipt for "+entryType, func() bool { r, err = c.try(0, b); return err == nil })
			return r
		}
		submit(ledger.TypeEnrol, ledger.Enrol{Name: "n", Key: n.Key.PublicKey(), Voucher: c.log.Voucher("v", 1, nil), Image: "x", Acted: acted()}, n.Key, c.log.Keys["voucher"])
		offer := n.Capacity(4096)
		offer.Acted = acted()
		submit(ledger.TypeCapacity, offer, n.Key)
		entry := c.entry()
		var at ledger.Receipt
		waitFor(t, "the deployment", func() (ok bool) {
			var err error
			at, err = c.try(0, entry)
			return err == nil
		})
		claim := submit(ledger.TypeClaim, ledger.Claim{Deployment: at.Index, Acted: acted()}, n.Key)
		for _, s := range c.srv {
			s.kill(t)
		}
		for i := range c.srv {
			c.srv[i] = startBad(outer{t, c}, c.dirs[i], "", "clock:1h")
		}
		var first ledger.Receipt
		entry = c.entry()
		waitFor(t, "an entry after the halt", func() (ok bool) {
			var err error
			first, err = c.try(0, entry)
			return err == nil
		})
		if first.TimeMs-claim.TimeMs < (55 * time.Minute).Milliseconds() {
			t.Fatalf("ledger time went on by %d ms only", first.TimeMs-claim.TimeMs)
		}
		// Nobody renews: it runs out, after the grace and not with the first block.
		waitFor(t, "the lease to run out", func() bool {
			cl := client(t, c.dirs[0], c.srv[0].url)
			return cl.Sync(t.Context()) == nil && cl.State().Claim(claim.Index).State == ledger.GrantExpired
		})
		cl = client(t, c.dirs[0], c.srv[0].url)
		if err := cl.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := cl.State().Claim(claim.Index).EndedMs - resumed(t, cl, claim.Index)
		if late < lease.GraceMs {
			t.Errorf("the lease ended %d ms after the halt, within the grace of %d", late, lease.GraceMs)
		}
		return fmt.Sprintf("ledger time jumps by %d min", (first.TimeMs-claim.TimeMs)/60_000), fmt.Sprintf("the lease outlives it and the grace of %d ms: nobody renews, it ends %d ms after the halt", lease.GraceMs, late)
	})
}

// resumed is the time of the first block after a halt that came after an entry.
func resumed(t *testing.T, cl *ledger.Client, after int64) int64 {
	t.Helper()
	var before, found int64
	err := cl.Entries().Range(t.Context(), after, cl.Entries().Len(), func(_ int64, raw []byte) error {
		if !ledger.IsBlock(raw) {
			return nil
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			return err
		}
		now := e.Payload.(*ledger.Block).TimeMs
		if found == 0 && before > 0 && now-before > (50*time.Minute).Milliseconds() {
			found = now
		}
		before = now
		return nil
	})
	if err != nil || found == 0 {
		t.Fatalf("no block ends a halt: %v", err)
	}
	return found
}
