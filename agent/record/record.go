// SPDX-License-Identifier: Apache-2.0

// Package record carries what the node has to say to the ledger, in order,
// without ever making the work wait for it.
//
// What is put into the queue is signed at once, with the number and the hash
// of the record before it, and written to a file; then it is submitted, one
// after the other, for as long as it takes. A receipt is a server's word: a
// file goes only when its entry is seen in the verified state. An agent that
// dies finds its files again, and so does the next boot of a node that keeps
// its state on a disk (agent/state); one without a disk is another node then. So
// a record that was made is never lost while the node lives, days without a
// network included, and a retry sends the same bytes, which the ledger takes
// only once.
package record

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// Ledger is what the queue needs of one.
type Ledger interface {
	// Submit hands an entry over. A *ledger.Refused is what the node's own
	// verified state says too; everything else may be tried again.
	Submit(ctx context.Context, entry []byte) (ledger.Receipt, error)
	// Acted is the newest log state that was verified.
	Acted() ledger.Acted
	// Has says whether an entry stands in the newest verified state.
	Has(entry []byte) bool
	// Changed is closed when there is a newer state than at the call.
	Changed() <-chan struct{}
}

// Config says where and how.
type Config struct {
	Dir    string
	Spill  string // in memory, for what the disk does not take; may be ""
	Ledger Ledger
	Signer sign.Signer
	Clock  clock.Clock
	Log    *slog.Logger
	Moved  func() // called whenever the loop has moved
}

// Queue is the ordered way to the ledger. Its methods are safe to call from
// several goroutines.
type Queue struct {
	cfg    Config
	mu     sync.Mutex
	at     *folders
	chains map[int64]chain
	files  []string // names, in order
	sent   int      // how many of the first files have a receipt
	next   int64
	more   chan struct{}
	empty  chan struct{} // closed while nothing waits
	broken map[int64]chan struct{}
}

// chain is where the records of a claim stand.
type chain struct {
	Seq      int64  `json:"seq"`
	Previous string `json:"previous"`
	Phase    string `json:"phase"` // of the last record
	Closed   bool   `json:"closed"`
	Refused  string `json:"refused,omitempty"` // why the ledger did not take one of them
}

const (
	entryExt   = ".entry"
	refusedExt = ".refused"
	chainPart  = "chain-"
	maxText    = 8 << 10 // the ledger's limit of a text
	firstRetry = time.Second
	lastRetry  = 15 * time.Second
	maxRefused = 64 // files kept to look at
)

func chainName(claim int64) string { return fmt.Sprintf("%s%d", chainPart, claim) }

// ErrClosed says that a claim's story has ended.
var ErrClosed = errors.New("the claim was closed")

// Record queues the record of a phase. Once the ledger has refused a record of
// the claim, nothing can be recorded as done any more: it returns ErrRefused.
func (q *Queue) Record(claim int64, r phase.Report) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.chains[claim]
	if c.Closed {
		return fmt.Errorf("record of phase %s: %w", r.Phase, ErrClosed)
	}
	if c.Refused != "" && r.Result == phase.OK {
		return fmt.Errorf("record of phase %s: %w: %s", r.Phase, ErrRefused, c.Refused)
	}
	p := ledger.Record{Claim: claim, Seq: c.Seq, Previous: c.Previous, Phase: string(r.Phase), Result: r.Result,
		StartedMs: r.Started.UnixMilli(), DurationMs: r.Took.Milliseconds(), Bytes: r.Bytes, Digests: r.Digests, Detail: clip(r.Detail), Acted: q.cfg.Ledger.Acted()}
	if p.Digests == nil {
		p.Digests = map[string]string{}
	}
	if r.Err != nil {
		p.Error = clip(r.Err.Error())
	}
	raw, err := q.push(ledger.TypeRecord, p)
	if err != nil {
		return err
	}
	c.Seq, c.Previous, c.Phase = c.Seq+1, ledger.HashEntry(raw), p.Phase
	return q.saveChain(claim, c)
}

// Incident queues an incident; claim is -1 when it concerns none.
func (q *Queue) Incident(claim int64, kind, machine, detail string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.push(ledger.TypeIncident, ledger.Incident{Claim: claim, Kind: kind, Machine: machine, Detail: clip(detail), Acted: q.cfg.Ledger.Acted()})
	return err
}

// Update queues a word about the node's own software.
func (q *Queue) Update(p ledger.Update) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	p.Reason, p.Acted = clip(p.Reason), q.cfg.Ledger.Acted()
	_, err := q.push(ledger.TypeUpdate, p)
	return err
}

// Release gives a claim back, after all that was recorded so far.
func (q *Queue) Release(claim int64, reason string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	_, err := q.push(ledger.TypeRelease, ledger.Release{Claim: claim, Reason: clip(reason), Acted: q.cfg.Ledger.Acted()})
	return err
}

// Close ends a claim's story: nothing can be recorded after it.
func (q *Queue) Close(claim int64, result, reason string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.chains[claim]
	if c.Closed {
		return nil
	}
	if _, err := q.push(ledger.TypeClose, ledger.Close{Claim: claim, Records: c.Seq, Result: result, Reason: clip(reason), Acted: q.cfg.Ledger.Acted()}); err != nil {
		return err
	}
	c.Closed = true
	return q.saveChain(claim, c)
}

// Resume makes the chain of a claim stand at least where the ledger has it: a
// claim whose local state is gone goes on behind its last record.
func (q *Queue) Resume(claim, seq int64, previous string) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	c := q.chains[claim]
	if c.Seq >= seq {
		return nil
	}
	c.Seq, c.Previous = seq, previous
	return q.saveChain(claim, c)
}

// LastPhase is the phase of a claim's last record, "" before the first.
func (q *Queue) LastPhase(claim int64) string {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.chains[claim].Phase
}

// Closed says whether the close of a claim was queued.
func (q *Queue) Closed(claim int64) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.chains[claim].Closed
}

// Claims are those that the queue keeps a chain of.
func (q *Queue) Claims() []int64 {
	q.mu.Lock()
	defer q.mu.Unlock()
	return slices.Sorted(maps.Keys(q.chains))
}

// Forget drops the chain of a claim that the ledger has as closed, once nothing
// here would ask for it again.
func (q *Queue) Forget(claim int64) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.forget(claim)
}

func (q *Queue) forget(claim int64) error {
	delete(q.broken, claim)
	if _, ok := q.chains[claim]; !ok {
		return nil
	}
	delete(q.chains, claim)
	if err := q.at.remove(chainName(claim)); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	return nil
}

// Waiting is how many entries are not yet seen on the ledger.
func (q *Queue) Waiting() int {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.files)
}

// Drain waits until nothing is waiting any more.
func (q *Queue) Drain(ctx context.Context) error {
	for {
		q.mu.Lock()
		empty := q.empty
		q.mu.Unlock()
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d records are not on the ledger: %w", q.Waiting(), ctx.Err())
		case <-empty:
			if q.Waiting() == 0 {
				return nil
			}
		}
	}
}

func (q *Queue) push(typ string, payload any) ([]byte, error) {
	raw, err := ledger.NewEntry(typ, payload, q.cfg.Signer)
	if err != nil {
		return nil, fmt.Errorf("make entry: %w", err)
	}
	name := fmt.Sprintf("%012d%s", q.next, entryExt)
	if err := q.at.write(name, raw); err != nil {
		return nil, fmt.Errorf("keep entry: %w", err)
	}
	q.next++
	if len(q.files) == 0 {
		q.empty = make(chan struct{})
	}
	q.files = append(q.files, name)
	select {
	case q.more <- struct{}{}:
	default:
	}
	return raw, nil
}

func (q *Queue) saveChain(claim int64, c chain) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	q.chains[claim] = c
	if err := q.at.write(chainName(claim), b); err != nil {
		return fmt.Errorf("records: chain of claim %d: %w", claim, err)
	}
	return nil
}

// clip keeps a text within the ledger's limit; the end says most in an error.
func clip(s string) string {
	s = strings.ToValidUTF8(s, "�")
	const cut = "…"
	if len(s) <= maxText {
		return s
	}
	s = s[len(s)-maxText+len(cut)+3:]
	return cut + strings.ToValidUTF8(s, "")
}

// pop removes the first entry; refused keeps it aside to be looked at.
func (q *Queue) pop(refused bool) error {
	name := q.files[0]
	q.files, q.sent = slices.Delete(q.files, 0, 1), max(q.sent-1, 0)
	if len(q.files) == 0 {
		close(q.empty)
	}
	if refused {
		return q.at.aside(name)
	}
	return q.at.remove(name)
}
