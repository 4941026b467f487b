// SPDX-License-Identifier: Apache-2.0

// Package audit tells the story of one deployment from the ledger, and checks
// it without believing anybody: not the server, not the client that fetched
// the log, not the nodes that wrote the records.
//
// History lists what happened; Run replays the whole log from entry 0 with a
// state of its own and compares everything that can be computed again. What
// an auditor cannot compute again stays what it is: the statement of a node,
// signed, in its place in the log.
package audit

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// Item is one entry in the story of a deployment.
type Item struct {
	Index      int64             `json:"index"`
	TimeMs     int64             `json:"timeMs"` // ledger time
	Kind       string            `json:"kind"`   // "register", "claim", "record", …
	Claim      int64             `json:"claim"`  // or -1
	Phase      string            `json:"phase"`  // of a record
	Result     string            `json:"result"`
	DurationMs int64             `json:"durationMs"` // of a record
	Bytes      int64             `json:"bytes"`      // of a record
	Digest     string            `json:"digest"`     // of the signed payload
	Digests    map[string]string `json:"digests"`    // what a record names
	Signers    []Signer          `json:"signers"`
	Policies   []Policy          `json:"policies"` // that it had to meet; none of a node's entries
	Turn       *ledger.Turn      `json:"turn"`     // of a claim: why its node was allowed then; else null
	Detail     string            `json:"detail"`

	entry *ledger.Entry
}

// Story is a deployment, all its versions if it was asked for by name.
type Story struct {
	Name     string  `json:"name"`
	Versions []int64 `json:"versions"` // their register entries
	Status   string  `json:"status"`   // of the newest version
	Items    []Item  `json:"items"`
	claims   map[int64]bool
	stops    map[int64]bool // entries that stopped a version
}

// NotFound says that no such deployment is on the ledger.
type NotFound struct{ Deployment string }

func (e *NotFound) Error() string {
	return fmt.Sprintf("deployment %q is not on the ledger; `zos status` lists those that are", e.Deployment)
}

// find resolves a name, which stands for all versions, or a log index.
func find(s *ledger.State, deployment string) (*Story, error) {
	st := &Story{claims: map[int64]bool{}, stops: map[int64]bool{}}
	for _, d := range s.Deployments() {
		if d.Name != deployment && strconv.FormatInt(d.ID, 10) != deployment {
			continue
		}
		st.Name, st.Status = d.Name, s.Status(d)
		st.Versions = append(st.Versions, d.ID)
		st.stops[d.Stopped] = true
		for _, c := range d.Claims {
			st.claims[c] = true
		}
	}
	if st.Versions == nil {
		return nil, &NotFound{deployment}
	}
	return st, nil
}

// History collects the story of a deployment, by name or by log index, from a
// client that has synced. One with Turns also tells why nodes were allowed to claim.
func History(ctx context.Context, c *ledger.Client, deployment string) (*Story, error) {
	return collect(ctx, c.State(), c.Entries(), deployment)
}

func collect(ctx context.Context, s *ledger.State, entries ledger.Entries, deployment string) (*Story, error) {
	st, err := find(s, deployment)
	if err != nil {
		return nil, err
	}
	if err := entries.Range(ctx, 0, entries.Len(), newTeller(s, st).add); err != nil {
		return nil, err
	}
	st.turns(s)
	return st, nil
}

// teller makes a story of the entries of a log.
type teller struct {
	state   *ledger.State // of all of them
	story   *Story
	root    *ledger.Root     // in force at the entry that comes
	revoked map[string]int64 // keys that count no more there, by fingerprint: what revoked them
	fresh   int              // items of the block that has not ended
}

func newTeller(s *ledger.State, st *Story) *teller {
	return &teller{state: s, story: st, root: s.RootAt(1), revoked: map[string]int64{}}
}

// add takes the next entry. It keeps those of the story.
func (t *teller) add(i int64, raw []byte) error {
	e, err := ledger.Decode(raw)
	if err != nil {
		return fmt.Errorf("entry %d: %w", i, err)
	}
	st := t.story
	switch p := e.Payload.(type) {
	case *ledger.Root:
		t.root = p
	case *ledger.Block:
		for n := len(st.Items) - t.fresh; n < len(st.Items); n++ {
			st.Items[n].TimeMs = p.TimeMs
		}
		t.fresh = 0
		return nil
	}
	if p, ok := e.Payload.(*ledger.Revoke); ok {
		id, err := sign.Fingerprint(p.Key)
		if err != nil {
			return fmt.Errorf("entry %d: %w", i, err)
		}
		defer func() { t.revoked[id] = i }() // it counts from the next entry on
	}
	item, ok := st.item(i, e)
	if !ok {
		return nil
	}
	item.Policies, item.Signers, err = t.agreed(i, e)
	if err != nil {
		return fmt.Errorf("entry %d: %w", i, err)
	}
	// The entry shares the bytes of its whole bundle.
	if item.entry, err = ledger.Decode(bytes.Clone(raw)); err != nil {
		return fmt.Errorf("entry %d: %w", i, err)
	}
	t.fresh++
	st.Items = append(st.Items, item)
	return nil
}

// item describes an entry, if it belongs to the story.
func (st *Story) item(index int64, e *ledger.Entry) (Item, bool) {
	it := Item{Index: index, Claim: -1, Digest: spec.Digest(e.Envelope.Payload), Digests: map[string]string{}, entry: e}
	switch p := e.Payload.(type) {
	case *spec.Deployment:
		it.Kind, it.Detail = "register", fmt.Sprintf("%s version %d", p.Metadata.Name, p.Metadata.Version)
		return it, slices.Contains(st.Versions, index)
	case *ledger.Stop:
		it.Kind, it.Detail = "stop", p.Reason
		return it, slices.Contains(st.Versions, p.Deployment)
	case *ledger.Revoke:
		it.Kind, it.Detail = "revoke", p.Reason
		return it, st.stops[index]
	case *ledger.Claim:
		it.Kind, it.Claim, it.Detail = "claim", index, fmt.Sprintf("attempt %d, acted on size %d", p.Attempt, p.Acted.Size)
		return it, slices.Contains(st.Versions, p.Deployment)
	case *ledger.Renew:
		it.Kind, it.Claim = "renew", p.Claim
	case *ledger.Release:
		it.Kind, it.Claim, it.Detail = "release", p.Claim, p.Reason
	case *ledger.Record:
		it.Kind, it.Claim, it.Phase, it.Result, it.DurationMs, it.Bytes, it.Digests = "record", p.Claim, p.Phase, p.Result, p.DurationMs, p.Bytes, p.Digests
		it.Detail = strings.Trim(p.Detail+"; "+p.Error, "; ")
	case *ledger.Incident:
		it.Kind, it.Claim, it.Result, it.Detail = "incident", p.Claim, p.Kind, strings.Trim(p.Machine+": "+p.Detail, ": ")
	case *ledger.Close:
		it.Kind, it.Claim, it.Result, it.Detail = "close", p.Claim, p.Result, p.Reason
	default:
		return it, false
	}
	return it, st.claims[it.Claim]
}
