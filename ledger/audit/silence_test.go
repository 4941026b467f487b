// SPDX-License-Identifier: Apache-2.0

package audit_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/spec"
)

// play is a deployment "shop" that node n1 has claimed, on a log whose lease is
// a minute.
type play struct {
	*ledgertest.Log
	n         *ledgertest.Node
	id, claim int64
}

func newPlay(t *testing.T, edit func(*spec.Deployment)) *play {
	l := ledgertest.New(t)
	p := &play{Log: l, n: l.Join("n1", 4096)}
	p.id = l.Must(l.Register("shop", 1, edit))
	p.claim = l.Must(p.n.Claim(p.id))
	return p
}

// ok records phases as done, from the one after the last, up to a phase.
func (p *play) ok(upTo string) {
	all := ledger.Phases()
	from := slices.Index(all, p.State().Claim(p.claim).Phase) + 1
	for _, name := range all[from : slices.Index(all, upTo)+1] {
		p.Must(p.n.Record(p.claim, name, "ok", nil))
	}
}

// failed records a phase as failed, and the undoing of others.
func (p *play) failed(phase string, undone ...string) {
	p.Must(p.n.Record(p.claim, phase, "failed", nil))
	for _, u := range undone {
		p.Must(p.n.Record(p.claim, u, "undone", nil))
	}
}

// renew lets time pass in which the node does nothing but renew.
func (p *play) renew(minutes int) {
	for range 2 * minutes {
		p.Pass(30_000)
		p.Must(p.n.Entry(ledger.TypeRenew, ledger.Renew{Claim: p.claim, Acted: p.Acted()}))
	}
}

// vanish lets the lease run out.
func (p *play) vanish() {
	for range 5 {
		p.Pass(15_000)
		p.Block()
	}
}

func (p *play) stop() {
	p.Must(p.Sign(ledger.TypeStop, ledger.Stop{Deployment: p.id, Name: "shop", Reason: "done"}, "author"))
}

func (p *play) incident(kind string) {
	p.Must(p.n.Entry(ledger.TypeIncident, ledger.Incident{Claim: p.claim, Kind: kind, Detail: "why", Acted: p.Acted()}))
}

func (p *play) release() {
	p.Must(p.n.Entry(ledger.TypeRelease, ledger.Release{Claim: p.claim, Reason: "shut down", Acted: p.Acted()}))
}

func (p *play) close(result string) {
	p.Must(p.n.Entry(ledger.TypeClose, ledger.Close{Claim: p.claim, Records: p.State().Claim(p.claim).Records, Result: result, Reason: "why", Acted: p.Acted()}))
}

// TestSilence: what a node did not say is found, however well everything that
// it did say fits.
func TestSilence(t *testing.T) {
	for name, c := range map[string]struct {
		story   func(p *play)
		missing string // first and last phase
		says    string
	}{
		"stopped, nothing told": {func(p *play) { p.stop(); p.close("stopped") },
			"detect running", "was closed as stopped, but no record says that it ran"},
		"renewed for an hour, nothing told": {func(p *play) { p.renew(60) },
			"detect running", "renewed it for 1h0m0s without a word, but phase detect has to be recorded within 6m0s"},
		"started, silent, a stop ignored for an hour": {func(p *play) { p.ok("start"); p.stop(); p.renew(60) },
			"post-verify running", "had ended the deployment"},
		"started, silent for an hour": {func(p *play) { p.ok("start"); p.renew(60) },
			"post-verify running", "phase post-verify has to be recorded within"},
		"ran out after two records": {func(p *play) { p.ok("match"); p.vanish() },
			"claim running", "its lease ran out, and its node never said how it ended"},
		"ran, and ran out": {func(p *play) { p.ok("running"); p.vanish() },
			"", "its lease ran out, and its node never said how it ended"},
		"ran out after the stop": {func(p *play) { p.ok("running"); p.stop(); p.vanish() },
			"", "its lease ran out, and its node never said how it ended"},
		"ran, the next version ignored": {func(p *play) { p.ok("running"); p.Must(p.Register("shop", 2, nil)); p.renew(1) },
			"", "had ended the deployment"},
		"replaced, before it ran": {func(p *play) { p.ok("plan"); p.Must(p.Register("shop", 2, nil)); p.close("replaced") },
			"network running", "was closed as replaced, but no record says that it ran"},
		"a hole before what failed": {func(p *play) { p.ok("match"); p.failed("start"); p.close("failed") },
			"claim volumes", "phase start is recorded, but before it there is no record of claim, retrieve"},
		"silent for an hour, then given back": {func(p *play) { p.ok("plan"); p.renew(60); p.release(); p.close("released") },
			"network running", "phase network has to be recorded within 6m0s"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, nil)
			c.story(p)
			r, err := audit.Run(t.Context(), audit.Config{Root: p.RootEnv, Ledger: p.Dir, Deployment: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(strings.Join(r.Discrepancies, "\n"), c.says) {
				t.Errorf("discrepancies %q, want one with %q", r.Discrepancies, c.says)
			}
			ends := ""
			if m := r.Claims[0].Missing; len(m) > 0 {
				ends = m[0] + " " + m[len(m)-1]
			}
			if ends != c.missing {
				t.Errorf("missing %q, want %s", r.Claims[0].Missing, c.missing)
			}
		})
	}
}

// TestPatience: what honest nodes tell is enough, however they end.
func TestPatience(t *testing.T) {
	for name, c := range map[string]struct {
		edit  func(*spec.Deployment)
		story func(p *play)
	}{
		"just claimed":       {nil, func(*play) {}},
		"its turn has begun": {nil, func(p *play) { p.ok("verify-network"); p.renew(2) }},
		"slow in several phases": {nil, func(p *play) {
			for _, name := range []string{"retrieve", "verify-network", "fetch-metadata"} {
				p.ok(name)
				p.renew(5)
			}
		}},
		"slow, runs for long, is stopped": {nil, func(p *play) {
			p.ok("fetch-metadata")
			p.renew(9)
			p.ok("start")
			p.renew(5)
			p.ok("running")
			p.renew(20)
			p.stop()
			p.close("stopped")
		}},
		"a machine that takes its time": {func(d *spec.Deployment) {
			d.Machines[0].Health = spec.Health{Kind: "tcp", Port: 80, IntervalMs: 1000, TimeoutMs: 1000, Failures: 1, DeadlineMs: 900_000}
		}, func(p *play) { p.ok("volumes"); p.renew(18); p.ok("running") }},
		"fails in the first phase": {nil, func(p *play) { p.failed("detect"); p.close("failed") }},
		"fails while it fetches": {nil, func(p *play) {
			p.ok("fetch-metadata")
			p.failed("fetch-content", "fetch-content")
			p.renew(9)
			p.close("failed")
		}},
		"fails at its start": {nil, func(p *play) {
			p.ok("volumes")
			p.failed("start", "start", "volumes", "network", "fetch-content")
			p.close("failed")
		}},
		"stopped while it starts":   {nil, func(p *play) { p.ok("volumes"); p.stop(); p.failed("start", "start", "volumes"); p.close("stopped") }},
		"runs, then a guest panics": {nil, func(p *play) { p.ok("running"); p.incident("guest-panic"); p.close("failed") }},
		"given back, runs elsewhere": {nil, func(p *play) {
			p.ok("match")
			p.release()
			p.close("released")
			p.n = p.Join("n2", 4096)
			p.Pass(40_000)
			p.claim = p.Must(p.n.Claim(p.id))
			p.ok("running")
		}},
		"replaced by the next version": {nil, func(p *play) {
			p.ok("running")
			next := p.Must(p.Register("shop", 2, nil))
			p.close("replaced")
			p.claim = p.Must(p.n.Claim(next))
			p.ok("running")
		}},
		"the ledger stands still for an hour": {nil, func(p *play) {
			p.ok("fetch-metadata")
			p.renew(8)
			p.Pass(3_600_000)
			p.renew(1)
		}},
		"a record was refused":               {nil, func(p *play) { p.ok("match"); p.incident("record-refused"); p.failed("start"); p.close("failed") }},
		"runs, is cut off, comes back":       {nil, func(p *play) { p.ok("running"); p.vanish(); p.close("failed") }},
		"lost all that it knew, and says so": {nil, func(p *play) { p.stop(); p.incident("story-lost"); p.close("stopped") }},
		"its key is taken from it": {nil, func(p *play) {
			p.ok("running")
			p.Must(p.Sign(ledger.TypeRevoke, ledger.Revoke{Key: p.n.Key.PublicKey(), Compromised: true, Reason: "stolen"}, "root"))
		}},
	} {
		t.Run(name, func(t *testing.T) {
			p := newPlay(t, c.edit)
			c.story(p)
			r, err := audit.Run(t.Context(), audit.Config{Root: p.RootEnv, Ledger: p.Dir, Deployment: "shop"})
			if err != nil {
				t.Fatal(err)
			}
			if !r.OK() {
				t.Errorf("discrepancies %q", r.Discrepancies)
			}
		})
	}
}
