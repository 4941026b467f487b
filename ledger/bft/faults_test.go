// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"text/tabwriter"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/p2p"
)

// TestFaults breaks a ledger of four validators, each a process of its own on
// loopback, in every way that is in the table, and prints what came of it.
// What has to hold every time: no two logs differ, no entry with a receipt is
// lost, none is there twice. `make test-ledger` runs it.
func TestFaults(t *testing.T) {
	t.Parallel()
	row := table(t)
	c := newCluster(t, 4)
	defer func() {
		for _, s := range c.srv {
			s.kill(t)
		}
	}()
	run := func(name string, f func(t *testing.T) (injected, came string)) {
		t.Run(name, func(t *testing.T) {
			c.t, c.group.t = t, t
			c.whole() // whatever the row before left, and also without it
			injected, came := f(t)
			size := c.same()
			row(name, injected, fmt.Sprintf("%s; %d receipts hold in a log of %d", came, len(c.got.entries), size))
		})
	}
	restart := func(t *testing.T, i int, crash, bad string) {
		c.srv[i].kill(t)
		// It outlives the subtest that started it.
		c.srv[i] = startBad(outer{t, c}, c.dirs[i], crash, bad)
	}
	all := func() (slowest time.Duration) {
		for i := range 4 {
			slowest = max(slowest, c.put(i, c.entry()))
		}
		return slowest
	}
	ms := func(d time.Duration) string { return d.Round(time.Millisecond).String() }

	run("nothing", func(t *testing.T) (string, string) {
		return "-", "slowest of 4 entries " + ms(all())
	})
	c.operate(run)
	c.otherRules(run)
	run("one of four killed", func(t *testing.T) (string, string) {
		c.srv[3].kill(t)
		var slowest time.Duration
		for i := range 12 {
			slowest = max(slowest, c.put(i%3, c.entry()))
		}
		restart(t, 3, "", "")
		return "process gone", "goes on, slowest of 12 entries " + ms(slowest)
	})
	run("two of four killed, restarted", func(t *testing.T) (string, string) {
		c.srv[2].kill(t)
		c.srv[3].kill(t)
		c.halted(0, "2 of 4 validators answer", "/v3", "/v4")
		c.halted(1, "2 of 4 validators answer")
		begin := time.Now()
		restart(t, 2, "", "")
		restart(t, 3, "", "")
		c.put(0, c.entry())
		return "processes gone", "halts, names the two; first entry " + ms(time.Since(begin)) + " after their start"
	})
	run("partition 3-1", func(t *testing.T) (string, string) {
		c.apart(true, 3)
		c.halted(3, "1 of 4 validators answer")
		var slowest time.Duration
		for i := range 6 {
			slowest = max(slowest, c.put(i%3, c.entry()))
		}
		shut := c.shut()
		c.apart(false, 3)
		begin := time.Now()
		c.put(3, c.entry())
		return shut, "three go on (slowest " + ms(slowest) + "), the one says that it stands still; healed after " + ms(time.Since(begin))
	})
	run("partition 2-2", func(t *testing.T) (string, string) {
		c.apart(true, 0, 1)
		c.halted(0, "2 of 4 validators answer", "/v3", "/v4")
		c.halted(2, "2 of 4 validators answer", "/v1", "/v2")
		shut := c.shut()
		c.apart(false, 0, 1)
		begin := time.Now()
		all()
		return shut, "both sides halt and say so; healed after " + ms(time.Since(begin))
	})
	run("partitions that come and go under load", func(t *testing.T) (string, string) {
		stop := c.load(4)
		for range 6 {
			side := rand.Perm(4)[:1+rand.IntN(2)]
			c.apart(true, side...)
			time.Sleep(4 * time.Second)
			c.apart(false, side...)
			time.Sleep(4 * time.Second)
		}
		waitFor(t, "receipts again", func() bool { _, err := c.try(0, c.entry()); return err == nil })
		return c.shut(), fmt.Sprintf("%d receipts under load", stop())
	})
	run("200 ms each way, 30 % of the chunks twice that", func(t *testing.T) (string, string) {
		c.slow(200 * time.Millisecond)
		slowest := all()
		c.slow(0)
		return "slowest of 4 entries " + ms(slowest), "goes on"
	})
	run("kill -9 at random under load, 12 times", func(t *testing.T) (string, string) {
		stop := c.load(4)
		for range 12 {
			i := rand.IntN(4)
			time.Sleep(time.Duration(500+rand.IntN(2500)) * time.Millisecond)
			restart(t, i, "", "")
		}
		waitFor(t, "receipts again", func() bool { _, err := c.try(0, c.entry()); return err == nil })
		return "12 processes gone", fmt.Sprintf("%d receipts under load", stop())
	})
	run("all four killed at once under load, 3 times", func(t *testing.T) (string, string) {
		n := 0
		for range 3 {
			stop := c.load(4)
			time.Sleep(time.Duration(2000+rand.IntN(2000)) * time.Millisecond)
			for _, s := range c.srv {
				s.kill(t)
			}
			n += stop()
			for i := range c.srv {
				restart(t, i, "", "")
			}
			all()
		}
		return "12 processes gone", fmt.Sprintf("%d receipts under load", n)
	})
	for _, point := range []string{"tiles:2", "file:2", "file:4", "checkpoint:2", "published:2"} {
		run("one dies at write step "+point, func(t *testing.T) (string, string) {
			restart(t, 1, point, "")
			died := make(chan struct{})
			go func() { c.srv[1].wait(); close(died) }()
			for gone := false; !gone; {
				c.put(0, c.entry())
				select {
				case <-died:
					gone = true
				default:
				}
			}
			c.srv[1] = startBad(outer{t, c}, c.dirs[1], "", "")
			c.put(1, c.entry())
			return "killed itself there", "comes back and catches up"
		})
	}
	run("one withholds its cosignatures", func(t *testing.T) (string, string) {
		restart(t, 3, "", "mute")
		var slowest time.Duration
		for i := range 6 {
			slowest = max(slowest, c.put(i%3, c.entry()))
		}
		cl := client(t, c.dirs[0], c.srv[0].url)
		if err := cl.Sync(t.Context()); err != nil || slices.ContainsFunc(cl.Checkpoint().Cosigners, func(s string) bool { return strings.HasSuffix(s, "/v4") }) {
			t.Errorf("cosigners %v, %v", cl.Checkpoint().Cosigners, err)
		}
		restart(t, 3, "", "")
		return fmt.Sprint("cosigners ", len(cl.Checkpoint().Cosigners)), "goes on, slowest of 6 " + ms(slowest)
	})
	run("two withhold their cosignatures", func(t *testing.T) (string, string) {
		restart(t, 2, "", "mute")
		restart(t, 3, "", "mute")
		c.halted(0, "2 of 4 validators answer", "/v3", "/v4")
		restart(t, 2, "", "")
		restart(t, 3, "", "")
		c.put(0, c.entry())
		return "cosigners too few", "nothing is published, names the two; goes on when they sign"
	})
	run("one sends rubbish and signatures of other trees", func(t *testing.T) (string, string) {
		restart(t, 3, "", "liar")
		var slowest time.Duration
		for i := range 6 {
			slowest = max(slowest, c.put(i%3, c.entry()))
		}
		waitFor(t, "somebody to notice the rubbish", func() bool {
			return strings.Contains(c.srv[0].err.String(), "says what is no statement")
		})
		restart(t, 3, "", "")
		return "in the log of validator 1", "goes on, slowest of 6 " + ms(slowest)
	})
	for _, off := range []string{"3m", "-3m"} {
		run("one clock is off by "+off, func(t *testing.T) (string, string) {
			restart(t, 3, "", "clock:"+off)
			var worst time.Duration
			for i := range 9 {
				c.put(i%3, c.entry())
				cl := client(t, c.dirs[0], c.srv[0].url)
				if err := cl.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
				worst = max(worst, time.Since(time.UnixMilli(cl.State().TimeMs())).Abs())
			}
			if worst > maxBehind+10*time.Second {
				t.Errorf("ledger time is off by %s", worst)
			}
			restart(t, 3, "", "")
			return "its proposals are refused", "ledger time never off by more than " + ms(worst)
		})
	}
	run("the same consensus key votes in two processes", func(t *testing.T) (string, string) {
		twin := c.twin(3)
		stop := c.load(3)
		time.Sleep(20 * time.Second)
		n := stop()
		for i := range 3 {
			c.put(i, c.entry())
		}
		// Whoever proposes in two processes proposes two blocks: sooner or later.
		proofs := 0
		waitFor(t, "a double vote to be proven", func() bool {
			c.put(0, c.entry())
			proofs = strings.Count(c.srv[0].err.String(), "voted for two blocks at once")
			return proofs > 0
		})
		twin.kill(t)
		return fmt.Sprintf("a fifth process, %d double votes proven", proofs), fmt.Sprintf("%d receipts, no fork", n)
	})
	run("a flood of invalid submissions", func(t *testing.T) (string, string) {
		refused, other := 0, 0
		body := `{"payloadType":"application/vnd.zos.claim.v1+json","payload":"e30=","signatures":[]}`
		var slowest time.Duration
		for i := range 5000 {
			resp, err := http.Post(c.srv[i%4].url+"/submit", "application/json", strings.NewReader(body))
			if err != nil {
				other++
				continue
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
			if resp.StatusCode == http.StatusBadRequest || resp.StatusCode == http.StatusTooManyRequests {
				refused++
			} else {
				other++
			}
			if i%1000 == 500 {
				slowest = max(slowest, c.put(i%4, c.entry()))
			}
		}
		if other > 0 {
			t.Errorf("%d were answered otherwise", other)
		}
		return fmt.Sprintf("%d refused", refused), "slowest honest entry " + ms(slowest)
	})
	c.flood(run, restart)
	c.dishonest(run)
	run("a rotation lost halfway: whoever would publish it dies", func(t *testing.T) (string, string) {
		cl := client(t, c.dirs[0], c.srv[0].url)
		if err := cl.Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		before := cl.State().Root().Version
		for i := range c.srv {
			restart(t, i, "checkpoint:1", "")
		}
		rotation := c.rotation(cl.State(), 0, 1, 2)
		// The new root has three validators and needs all: the first to have their
		// cosignatures dies of it, whoever that is, and the others may live on.
		waitFor(t, "one to die of it", func() bool {
			if _, err := c.try(0, rotation); err == nil {
				t.Fatal("a receipt from the dead")
			}
			return c.dead() > 0
		})
		for i := range c.srv {
			restart(t, i, "", "")
		}
		waitFor(t, "the rotation", func() bool { _, err := c.try(0, rotation); return err == nil })
		if err := cl2(t, c.dirs[0], c.srv[0].url).Sync(t.Context()); err != nil {
			t.Fatal(err)
		}
		again := client(t, c.dirs[0], c.srv[0].url)
		if err := again.Sync(t.Context()); err != nil || again.State().Root().Version != before+1 {
			t.Errorf("root version %d, %v", again.State().Root().Version, err)
		}
		c.put(0, c.entry())
		return "processes gone", "it is on the ledger once; 3 of 3 go on"
	})
	for _, s := range c.srv {
		s.kill(t)
	}
	c = newClusterOver(t, 7, 4, "", "")
	seven(t, run, c)
}

// table prints rows as they come, and all of them at the end of the test.
func table(t *testing.T) func(fault, injected, came string) {
	var rows []string
	t.Cleanup(func() {
		w := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "FAULT\tSEEN TO BE INJECTED\tWHAT CAME OF IT")
		for _, r := range rows {
			fmt.Fprintln(w, r)
		}
		if t.Failed() {
			fmt.Fprintln(w, "FAILED\t\tsee above")
		}
		w.Flush()
	})
	return func(fault, injected, came string) {
		rows = append(rows, fault+"\t"+injected+"\t"+came)
		fmt.Printf("%s · %s · %s\n", fault, injected, came) // at once: the table comes at the end, if it comes
	}
}

// skipRow says in the table that a fault was not tried, where it was not.
func skipRow(t *testing.T, row func(fault, injected, came string), fault string) {
	t.Cleanup(func() {
		if t.Skipped() {
			row(fault, "SKIP: NOT INJECTED", "nothing is known: it cannot be done on this machine, see the reason above")
		}
	})
}

// outer lives as long as the cluster, not as the subtest.
type outer struct {
	testing.TB
	c *cluster
}

func (o outer) Cleanup(f func()) { /* the parent's deadline kills children by Pdeathsig */ }

// whole joins all links and starts what is gone, dishonest or sick anew, so that
// no row of the table needs what another one did, or suffers from it.
func (c *cluster) whole() {
	c.slow(0)
	for i, s := range c.srv {
		if s.odd || s.cmd.ProcessState != nil {
			s.kill(c.t)
			c.srv[i] = startBad(outer{c.t, c}, c.dirs[i], "", "")
		}
	}
}

// shut says how many connections the links ended or kept out.
func (c *cluster) shut() string {
	var n int64
	for _, k := range c.links {
		n += k.shut.Swap(0)
	}
	if n == 0 {
		c.t.Error("no connection was cut")
	}
	return fmt.Sprintf("%d connections cut", n)
}

// twin runs a second process with the consensus key of validator i and no
// memory of what it signed.
func (c *cluster) twin(i int) *server {
	c.t.Helper()
	dir := filepath.Join(c.t.TempDir(), "twin")
	c.srv[i].kill(c.t)
	if out, err := exec.Command("cp", "-a", c.dirs[i], dir).CombinedOutput(); err != nil {
		c.t.Fatalf("%v: %s", err, out)
	}
	key := p2p.NodeKey{PrivKey: ed25519.GenPrivKey()}
	if err := key.SaveAs(filepath.Join(dir, "keys", "p2p.json")); err != nil {
		c.t.Fatal(err)
	}
	m, err := LoadMesh(dir)
	if err != nil {
		c.t.Fatal(err)
	}
	m.Listen = freePort(c.t)
	if err := m.Save(dir); err != nil {
		c.t.Fatal(err)
	}
	for j, other := range c.dirs {
		if j == i {
			continue
		}
		m, err := LoadMesh(other)
		if err != nil {
			c.t.Fatal(err)
		}
		m.Add(string(key.ID()) + "@" + freePort(c.t))
		if err := m.Save(other); err != nil {
			c.t.Fatal(err)
		}
	}
	time.Sleep(2 * repeat) // they read their mesh files again
	c.srv[i] = startBad(outer{c.t, c}, c.dirs[i], "", "")
	return startBad(outer{c.t, c}, dir, "", "")
}
