// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"slices"
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec"
)

// claim follows the records of one claim as a reader would who knows nothing
// of Apply.
func (r *Report) claim(d *ledger.Deployment, g *ledger.Grant) ClaimSum {
	sum := ClaimSum{Claim: g.Index, Node: g.Node, State: g.State, Result: g.CloseResult}
	previous, closed := "", int64(-1)
	var done []string // phases that went well
	failed := false   // a phase's record or an incident of the claim says what failed
	for _, it := range r.Story.Items {
		if it.Claim != g.Index {
			continue
		}
		if closed >= 0 {
			r.wrong("entry %d: %s after claim %d was closed by entry %d", it.Index, it.Kind, g.Index, closed)
		}
		for _, s := range it.Signers {
			if s.Key != g.Node {
				r.wrong("entry %d: signed by %s, but claim %d is of node %s", it.Index, s.Key, g.Index, g.Node)
			}
		}
		switch p := it.entry.Payload.(type) {
		case *ledger.Record:
			if p.Seq != int64(sum.Records) || p.Previous != previous {
				r.wrong("entry %d: record %d of claim %d follows %q, want record %d after %q", it.Index, p.Seq, g.Index, p.Previous, sum.Records, previous)
			}
			previous = ledger.HashEntry(it.entry.Raw)
			sum.Records++
			r.Records++
			done = r.record(d, it, p, done, &sum)
			failed = failed || p.Result == "failed"
		case *ledger.Incident:
			failed = true // it had run: nothing that fails then is a phase
		case *ledger.Close:
			closed = it.Index
			if p.Records != int64(sum.Records) {
				r.wrong("entry %d: close counts %d records, the log has %d", it.Index, p.Records, sum.Records)
			}
		}
	}
	// What was given back before did not fail: the node may have been shut down.
	// And what ran when its lease ran out ended for that.
	ranOut := g.State == ledger.GrantExpired && slices.Contains(done, ledger.PhaseRunning)
	if g.CloseResult == "failed" && !failed && !ranOut && g.State != ledger.GrantReleased {
		r.wrong("claim %d: was closed as failed, but no record and no incident says what failed", g.Index)
	}
	if g.Records != int64(sum.Records) || g.LastRecord != previous {
		r.wrong("claim %d: the state counts %d records, the log has %d", g.Index, g.Records, sum.Records)
	}
	return sum
}

// record checks one record against the spec and those before it.
func (r *Report) record(d *ledger.Deployment, it Item, p *ledger.Record, done []string, sum *ClaimSum) []string {
	r.digests(d, it, p)
	if plan := p.Digests["plan"]; plan != "" {
		if sum.Plan != "" && sum.Plan != plan {
			r.wrong("entry %d: %s names plan %s, before it was %s", it.Index, p.Phase, plan, sum.Plan)
		}
		sum.Plan = plan
	}
	if p.Result != "ok" {
		return done
	}
	if p.Phase == ledger.PhaseRunning {
		for _, want := range ledger.Phases() {
			if want != ledger.PhaseRunning && !slices.Contains(done, want) {
				r.wrong("entry %d: says running, but phase %s is not recorded as ok", it.Index, want)
			}
		}
	}
	place := slices.Index(ledger.Phases(), p.Phase)
	if place >= 0 && !slices.Contains(done, p.Phase) {
		for _, later := range done {
			if slices.Index(ledger.Phases(), later) > place {
				r.wrong("entry %d: phase %s comes after %s", it.Index, p.Phase, later)
			}
		}
	}
	return append(done, p.Phase)
}

// digests compares what a record names as "kernel/MACHINE" and so on with
// the spec. Other names are the node's own.
func (r *Report) digests(d *ledger.Deployment, it Item, p *ledger.Record) {
	for name, got := range p.Digests {
		what, machine, ok := strings.Cut(name, "/")
		if !ok {
			if name == "spec" && got != d.Digest {
				r.wrong("entry %d: names spec %s, registered is %s", it.Index, got, d.Digest)
			}
			continue
		}
		i := slices.IndexFunc(d.Spec.Machines, func(m spec.Machine) bool { return m.Name == machine })
		if i < 0 {
			continue
		}
		m := d.Spec.Machines[i]
		want := map[string]string{"kernel": m.Kernel, "initramfs": m.Initramfs, "image": m.Image.ID, "oci": m.Image.OCI, "verityRoot": m.Image.VerityRoot}[what]
		if want != "" && got != want {
			r.wrong("entry %d: %s is %s, the spec says %s", it.Index, name, got, want)
		}
	}
}
