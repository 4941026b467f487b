// SPDX-License-Identifier: Apache-2.0

package record

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/ledger"
)

// Open takes up what an earlier agent left.
func Open(cfg Config) (*Queue, error) {
	if err := os.MkdirAll(cfg.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	q := &Queue{cfg: cfg, chains: map[int64]chain{}, more: make(chan struct{}, 1), empty: make(chan struct{}), broken: map[int64]chan struct{}{}}
	list, err := os.ReadDir(cfg.Dir)
	if err != nil {
		return nil, fmt.Errorf("records: %w", err)
	}
	var damaged []string
	for _, e := range list {
		name := e.Name()
		if strings.HasSuffix(name, refusedExt) {
			continue
		}
		if strings.HasPrefix(name, ".") { // half a file, of an agent or a machine that stopped
			if err := os.Remove(filepath.Join(cfg.Dir, name)); err != nil {
				return nil, fmt.Errorf("records: %w", err)
			}
		} else if n, found := strings.CutPrefix(name, chainPart); found {
			err := q.loadChain(n)
			if errors.Is(err, errDamaged) {
				damaged = append(damaged, err.Error())
				err = q.aside(name)
			}
			if err != nil {
				return nil, err
			}
		}
	}
	for _, e := range list { // ReadDir sorts: in the order of their numbers
		name, isEntry := strings.CutSuffix(e.Name(), entryExt)
		if !isEntry || strings.HasPrefix(name, ".") {
			continue
		}
		if _, err := fmt.Sscanf(name, "%d", &q.next); err != nil {
			return nil, fmt.Errorf("records: file %s: %w", e.Name(), err)
		}
		q.next++
		err := q.takeUp(e.Name())
		if errors.Is(err, errDamaged) {
			damaged = append(damaged, err.Error())
			err = q.aside(e.Name())
		}
		if err != nil {
			return nil, err
		}
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

// aside keeps a damaged file to be looked at.
func (q *Queue) aside(name string) error {
	path := filepath.Join(q.cfg.Dir, name)
	if err := os.Rename(path, strings.TrimSuffix(path, entryExt)+refusedExt); err != nil {
		return fmt.Errorf("records: %w", err)
	}
	return nil
}

func (q *Queue) loadChain(number string) error {
	var claim int64
	if _, err := fmt.Sscanf(number, "%d", &claim); err != nil {
		return fmt.Errorf("records: chain %q: %w: %w", number, errDamaged, err)
	}
	b, err := os.ReadFile(q.chainPath(claim))
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	var c chain
	if err := json.Unmarshal(b, &c); err != nil {
		return fmt.Errorf("records: chain of claim %d: %w: %w", claim, errDamaged, err)
	}
	q.chains[claim] = c
	return nil
}

// takeUp queues a file again and brings its claim's chain up to it: the agent
// may have died between writing the one and the other.
func (q *Queue) takeUp(name string) error {
	raw, err := os.ReadFile(filepath.Join(q.cfg.Dir, name))
	if err != nil {
		return fmt.Errorf("records: %w", err)
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		return fmt.Errorf("records: %s: %w: %w", name, errDamaged, err)
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
