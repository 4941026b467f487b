// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"fmt"

	"github.com/zos-node/zos/ledger"
)

// ErrRefused says that the ledger did not take a record of the claim, so that
// its story has a hole.
var ErrRefused = errors.New("the ledger refused a record")

// IncidentRefused is the kind of the incident that tells of the hole.
const IncidentRefused = "record-refused"

// Broken is closed when the ledger refuses what is said about a claim. A phase
// whose record nobody can see has not happened: whoever lives by the claim must
// end then. Refusal tells why.
func (q *Queue) Broken(claim int64) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.brokenOf(claim)
}

func (q *Queue) brokenOf(claim int64) chan struct{} {
	c, ok := q.broken[claim]
	if !ok {
		c = make(chan struct{})
		if q.chains[claim].Refused != "" { // an earlier agent saw it
			close(c)
		}
		q.broken[claim] = c
	}
	return c
}

// Refusal is an ErrRefused with the reason, or nil when all was taken so far.
func (q *Queue) Refusal(claim int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if why := q.chains[claim].Refused; why != "" {
		return fmt.Errorf("%w: %s", ErrRefused, why)
	}
	return nil
}

// refused takes the first entry out, which the ledger will never take.
//
// A record leaves a hole: its claim is broken, an incident says so, and what
// waits behind it is made anew to follow the last record that was taken, so
// that the rest of the story, and its end, still come onto the ledger. A close
// is forgotten with its chain: the claim is then one that nothing is left of,
// and is closed by what the ledger has. The rest ends nothing by itself, except
// an incident of a claim, which is as much a part of its story as a record.
func (q *Queue) refused(raw []byte, why error) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, err := ledger.Decode(raw)
	if err != nil {
		return errors.Join(fmt.Errorf("refused entry: %w", err), q.pop(true))
	}
	switch p := e.Payload.(type) {
	case *ledger.Record:
		text := fmt.Sprintf("record %d (phase %s, %s): %s", p.Seq, p.Phase, p.Result, why)
		c := q.chains[p.Claim]
		if c.Refused == "" {
			_, err = q.push(ledger.TypeIncident, ledger.Incident{Claim: p.Claim, Kind: IncidentRefused, Detail: clip(text), Acted: q.cfg.Ledger.Acted()})
		}
		c.Seq, c.Previous = p.Seq, p.Previous
		return errors.Join(err, q.breakClaim(p.Claim, c, text), q.pop(true), q.renew(p.Claim))
	case *ledger.Incident:
		if p.Claim < 0 {
			break
		}
		return errors.Join(q.breakClaim(p.Claim, q.chains[p.Claim], fmt.Sprintf("incident %s: %s", p.Kind, why)), q.pop(true))
	case *ledger.Close:
		return errors.Join(q.pop(true), q.forget(p.Claim))
	}
	return q.pop(true)
}

func (q *Queue) breakClaim(claim int64, c chain, why string) error {
	ch := q.brokenOf(claim)
	if c.Refused == "" {
		c.Refused = why
		defer close(ch)
	}
	return q.saveChain(claim, c)
}

// renew makes the waiting records and the close of a claim anew, behind its
// chain. An agent that dies in the middle of it has the next refused, and the
// one after it comes here again.
func (q *Queue) renew(claim int64) error {
	c := q.chains[claim]
	for _, name := range q.files {
		raw, err := q.at.read(name)
		if err != nil {
			return fmt.Errorf("records: %w", err)
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			return fmt.Errorf("records: %s: %w", name, err)
		}
		var payload any
		typ := ledger.TypeRecord
		switch p := e.Payload.(type) {
		case *ledger.Record:
			if p.Claim != claim {
				continue
			}
			p.Seq, p.Previous = c.Seq, c.Previous
			payload = *p
		case *ledger.Close:
			if p.Claim != claim {
				continue
			}
			p.Records = c.Seq
			payload, typ = *p, ledger.TypeClose
		default:
			continue
		}
		if raw, err = ledger.NewEntry(typ, payload, q.cfg.Signer); err != nil {
			return fmt.Errorf("make entry: %w", err)
		}
		if err := q.at.write(name, raw); err != nil {
			return fmt.Errorf("keep entry: %w", err)
		}
		if typ == ledger.TypeRecord {
			c.Seq, c.Previous = c.Seq+1, ledger.HashEntry(raw)
		}
	}
	return q.saveChain(claim, c)
}
