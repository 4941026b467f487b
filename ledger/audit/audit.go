// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/spec"
)

// Config says what to audit and whom to trust.
type Config struct {
	Root       []byte // envelope of the root of trust
	Ledger     string // URL or folder
	Deployment string // name (all its versions) or log index
	StateFile  string // remembers the last checkpoint, see ledger.ClientConfig; "" for none
	HTTP       *http.Client
	MaxAge     time.Duration                        // how old the newest signatures may be, by this clock; 0: that is only said
	Progress   func(step string, done, total int64) // see ledger.ClientConfig; also "replay"; nil for none
}

// Report is the outcome. The audit passed if there are no discrepancies.
type Report struct {
	Story         *Story     `json:"story"`
	Origin        string     `json:"origin"`
	Size          int64      `json:"size"`
	Root          string     `json:"root"`     // of the Merkle tree, hex
	TimeMs        int64      `json:"timeMs"`   // ledger time of the last block: what came later is not in this copy
	SignedMs      int64      `json:"signedMs"` // since when enough validators signed its checkpoint
	Frozen        string     `json:"frozen"`   // why the log stands still by this clock, or ""
	Cosigners     []string   `json:"cosigners"`
	Entries       int64      `json:"entries"`    // replayed from entry 0
	Signatures    int        `json:"signatures"` // in entries of this deployment
	Proofs        int        `json:"proofs"`     // inclusion proofs checked
	Files         int        `json:"files"`      // tiles, bundles and roots computed again
	Records       int        `json:"records"`
	Claims        []ClaimSum `json:"claims"`
	Discrepancies []string   `json:"discrepancies"`

	proof   map[int64]string // of the story's entries, C2SP tlog-proofs
	claimed map[int64]string // claim to digest of the spec
}

// ClaimSum is what one claim came to.
type ClaimSum struct {
	Claim   int64  `json:"claim"`
	Node    string `json:"node"`
	Name    string `json:"name"`
	State   string `json:"state"`
	Records int    `json:"records"`
	Plan    string `json:"plan"` // digest, "" if it did not get there
	Result  string `json:"result"`
	// Turn is why the node was allowed to claim when it did.
	Turn *ledger.Turn `json:"turn"`
	// Missing are phases of which no record says how they went, although it
	// should (see silence.go).
	Missing []string `json:"missing"`
}

// OK says whether everything fits.
func (r *Report) OK() bool { return len(r.Discrepancies) == 0 }

func (r *Report) wrong(format string, args ...any) {
	r.Discrepancies = append(r.Discrepancies, fmt.Sprintf(format, args...))
}

// Run audits one deployment. A log that cannot be believed at all is an
// error; what is wrong in the story of the deployment stands in the report.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: cfg.Root, Ledgers: []string{cfg.Ledger}, StateFile: cfg.StateFile, HTTP: cfg.HTTP, Progress: cfg.Progress})
	if err != nil {
		return nil, err
	}
	if err := c.Sync(ctx); err != nil {
		return nil, err
	}
	if cfg.MaxAge > 0 {
		if err := c.Within(cfg.MaxAge, time.Now()); err != nil {
			return nil, err
		}
	}
	cp := c.Checkpoint()
	entries := c.Entries()
	r := &Report{Origin: c.State().Root().Log.Origin, Size: cp.N, Root: hex.EncodeToString(cp.Hash[:]), TimeMs: c.State().TimeMs(), SignedMs: cp.FreshSec * 1000,
		Cosigners: cp.Cosigners, Discrepancies: []string{}, proof: map[int64]string{}, claimed: map[int64]string{}}
	// An old copy is right in every byte: that it is old, only its dates say.
	if err := c.Frozen(time.Now()); err != nil {
		r.Frozen = err.Error()
	}

	// One more walk through the log does for everything, so that no entry has to
	// be kept. Which of them belong to the deployment says the client's state;
	// that the replay comes to the same one is checked.
	story, err := find(c.State(), cfg.Deployment)
	if err != nil {
		return nil, err
	}
	files, err := entries.Files()
	if err != nil {
		return nil, err
	}
	teller := newTeller(c.State(), story)
	state, err := replay(ctx, entries, cfg.Progress, files.Add, teller.add)
	if err != nil {
		return nil, err
	}
	r.Entries = state.Size()
	if state.RootHash() != r.Root {
		return nil, fmt.Errorf("%w: replaying %d entries gives root %s, the checkpoint has %s", ledger.ErrForged, state.Size(), state.RootHash(), r.Root)
	}
	if state.StateRoot() != c.State().StateRoot() {
		return nil, fmt.Errorf("%w: replaying %d entries gives state root %s, following them gave %s", ledger.ErrForged, state.Size(), state.StateRoot(), c.State().StateRoot())
	}
	story.turns(state)
	r.Story = story
	compared, wrong, err := files.Check(ctx)
	if err != nil {
		return nil, err
	}
	r.Files = compared
	for _, w := range wrong {
		r.wrong("%v", w)
	}
	if err := r.proofs(ctx, entries, cp.Note); err != nil {
		return nil, err
	}
	for _, id := range r.Story.Versions {
		r.version(state, state.Deployment(id))
	}
	return r, nil
}

// replay folds the log into a state of its own, and gives every entry to others.
func replay(ctx context.Context, entries ledger.Entries, progress func(step string, done, total int64), each ...func(index int64, raw []byte) error) (*ledger.State, error) {
	s := ledger.NewState()
	s.KeepTurns()
	fold := ledger.NewFold(s)
	err := entries.Range(ctx, 0, entries.Len(), func(i int64, raw []byte) error {
		progress("replay", i+1, entries.Len())
		for _, other := range each {
			if err := other(i, raw); err != nil {
				return err
			}
		}
		return fold.Add(raw)
	})
	if err := errors.Join(err, fold.Done()); err != nil {
		return nil, fmt.Errorf("%w: %w", ledger.ErrForged, err)
	}
	return s, nil
}

// prover is what proofs needs of ledger.Entries.
type prover interface {
	Get(ctx context.Context, i int64) ([]byte, error)
	Prove(ctx context.Context, i int64) (ledger.EntryProof, error)
}

// proofs checks that each entry of the story is in the tree, by a proof, and
// counts its signatures, which collect has verified.
func (r *Report) proofs(ctx context.Context, entries prover, checkpoint []byte) error {
	for _, it := range r.Story.Items {
		r.Signatures += len(it.Signers)
		raw, err := entries.Get(ctx, it.Index)
		if err != nil {
			return err
		}
		proof, err := entries.Prove(ctx, it.Index)
		if err != nil {
			r.wrong("entry %d: no proof that it is in the tree: %v", it.Index, err)
			continue
		}
		if err := proof.Check(raw); err != nil {
			r.wrong("entry %d: %v", it.Index, err)
			continue
		}
		r.Proofs++
		r.proof[it.Index] = proof.Format(checkpoint)
		for _, s := range it.Signers {
			if s.Role == "" && it.Kind != "register" && it.Kind != "stop" && it.Kind != "revoke" {
				r.wrong("entry %d: %s is signed by %s, which is no node", it.Index, it.Kind, s.Key)
			}
		}
	}
	return nil
}

// version checks one version of the deployment: who agreed, and each claim.
func (r *Report) version(s *ledger.State, d *ledger.Deployment) {
	if got := spec.Digest(r.payload(d.ID)); got != d.Digest {
		r.wrong("entry %d: the spec has digest %s, the state says %s", d.ID, got, d.Digest)
	}
	root := s.RootAt(d.RootVersion)
	r.counted(d, root)
	plans := map[string]string{} // hypervisor to plan digest
	for _, index := range d.Claims {
		g := s.Claim(index)
		node := s.Node(g.Node)
		r.claimed[index] = d.Digest
		sum := r.claim(d, g)
		r.silence(s, d, g, &sum)
		sum.Name, sum.Turn = node.Name, s.Turn(index)
		if sum.Plan != "" && node.Capacity != nil {
			h := node.Capacity.Hypervisor.Name
			if first, ok := plans[h]; ok && first != sum.Plan {
				r.wrong("claim %d: plan is %s, another node with %s had %s from the same spec", index, sum.Plan, h, first)
			}
			plans[h] = sum.Plan
		}
		r.Claims = append(r.Claims, sum)
	}
}

func (r *Report) payload(index int64) []byte {
	for _, it := range r.Story.Items {
		if it.Index == index {
			return it.entry.Envelope.Payload
		}
	}
	return nil
}
