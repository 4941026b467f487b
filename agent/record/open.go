// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/zos-node/zos/ledger"
)

// Open takes up what an earlier agent left.
func Open(cfg Config) (*Queue, error) {
	at, names, err := openFolders(cfg.Dir, cfg.Spill, cfg.Log)
	if err != nil {
		return nil, err
	}
	q := &Queue{cfg: cfg, at: at, chains: map[int64]chain{}, more: make(chan struct{}, 1), empty: make(chan struct{}), broken: map[int64]chan struct{}{}}
	var damaged []string
	each := func(mine func(name string) bool, load func(name string) error) error {
		for _, name := range names {
			if !mine(name) {
				continue
			}
			err := load(name)
			if errors.Is(err, errDamaged) {
				damaged = append(damaged, err.Error())
				err = at.aside(name)
			}
			if err != nil {
				return fmt.Errorf("records: %w", err)
			}
		}
		return nil
	}
	if err := each(func(name string) bool { return strings.HasPrefix(name, chainPart) }, q.loadChain); err != nil {
		return nil, err
	}
	if err := each(func(name string) bool { return strings.HasSuffix(name, entryExt) }, q.takeUp); err != nil {
		return nil, err
	}
	if len(q.files) == 0 {
		close(q.empty)
	} else {
		cfg.Log.Info("records are left from an earlier agent", "count", len(q.files))
		q.more <- struct{}{}
	}
	for _, why := range damaged {
		cfg.Log.Error("a file of the queue is damaged and put aside", "err", why)
		if err := q.Incident(-1, IncidentDamaged, "", why); err != nil {
			return nil, err
		}
	}
	return q, nil
}

// IncidentDamaged is the kind of the incident that tells of a file that the disk
// did not keep as it was written. Records that build on one are refused then, and
// made anew behind the hole (see refused); a chain is found from what waits, and
// from the ledger (see Resume).
const IncidentDamaged = "record-damaged"

// errDamaged says that a file is not what was written. An agent that ended on it
// would end at each boot.
var errDamaged = errors.New("damaged")

func (q *Queue) loadChain(name string) error {
	var claim int64
	if _, err := fmt.Sscanf(name, chainPart+"%d", &claim); err != nil || name != chainName(claim) {
		return fmt.Errorf("%s: %w: it names no claim", name, errDamaged)
	}
	b, err := q.at.read(name)
	if err != nil {
		return err
	}
	var c chain
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("chain of claim %d: %w: %w", claim, errDamaged, err)
	}
	q.chains[claim] = c
	return nil
}

// takeUp queues a file again and brings its claim's chain up to it: the agent
// may have died between writing the one and the other.
func (q *Queue) takeUp(name string) error {
	if _, err := fmt.Sscanf(name, "%d"+entryExt, &q.next); err != nil {
		return fmt.Errorf("%s: %w: it has no number", name, errDamaged)
	}
	q.next++
	raw, err := q.at.read(name)
	if err != nil {
		return err
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		return fmt.Errorf("%s: %w: %w", name, errDamaged, err)
	}
	switch p := e.Payload.(type) {
	case *ledger.Record:
		if c := q.chains[p.Claim]; p.Seq >= c.Seq {
			c.Seq, c.Previous, c.Phase = p.Seq+1, ledger.HashEntry(raw), p.Phase
			q.chains[p.Claim] = c
		}
	case *ledger.Close:
		c := q.chains[p.Claim]
		c.Closed = true
		q.chains[p.Claim] = c
	}
	q.files = append(q.files, name)
	return nil
}
