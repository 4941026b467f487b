// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// ready is how long a rotation waits for the validators that it names to have
// signed the present tree.
const ready = 10 * time.Second

// canServe refuses a root of trust under which no checkpoint could be
// published now: accepting it would end the log for every reader until the
// validators that it names are there. It also refuses one that names a new
// validator which is not there, however few that is: each of those takes away
// one of the failures that the ledger can bear.
func (e *Engine) canServe(ctx context.Context, entry *ledger.Entry) error {
	root, ok := entry.Payload.(*ledger.Root)
	if !ok {
		return nil
	}
	s, ok := e.app.cosign.own()
	if !ok {
		return errors.New("this server has signed nothing yet")
	}
	from := s.Size
	e.app.mu.RLock()
	fresh := newly(e.app.state.Root(), root)
	e.app.mu.RUnlock()
	var last error
	for until := time.Now().Add(ready); ; {
		if s, ok = e.app.cosign.own(); !ok {
			return errors.New("this server has signed nothing yet")
		}
		t, err := s.tree()
		if err != nil {
			return err
		}
		absent := e.app.cosign.absent(root.Checkpoints(), fresh, from)
		if last = e.would(root, t); last == nil && len(absent) == 0 {
			return nil
		}
		if len(absent) > 0 {
			last = fmt.Errorf("%s has not signed the log's tree of size %d; start it (zos ledger serve), name it to this server (zos ledger peer), let it catch up, and try again", strings.Join(absent, ", "), t.N)
		}
		if time.Now().After(until) {
			break
		}
		select {
		case <-time.After(repeat / 4):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return &ledger.Refused{Field: "payload.log.validators", Reason: "are not all there and up to date: " + last.Error(), Index: -1}
}

// would tries a checkpoint of a tree under a root.
func (e *Engine) would(root *ledger.Root, t tlog.Tree) error {
	_, err := e.app.cosign.checkpoint(root.Checkpoints(), t)
	return err
}

// newly are the validators of the next root that have another key than those
// of the one before.
func newly(old, next *ledger.Root) []ledger.Validator {
	return slices.DeleteFunc(slices.Clone(next.Log.Validators), func(v ledger.Validator) bool {
		return slices.ContainsFunc(old.Log.Validators, func(w ledger.Validator) bool {
			return v.Consensus == w.Consensus && v.Cosigner == w.Cosigner && v.Log == w.Log
		})
	})
}

// absent names those validators of a policy that have signed none of our own
// trees of at least a size.
func (c *collector) absent(p tiles.Policy, all []ledger.Validator, size int64) []string {
	var trees []tlog.Tree
	c.mu.Lock()
	if v := c.said[""]; v != nil {
		for _, s := range v.last {
			if t, err := s.tree(); err == nil && t.N >= size {
				trees = append(trees, t)
			}
		}
	}
	c.mu.Unlock()
	there := map[string]bool{}
	for _, t := range trees {
		if _, names, err := p.Merge(t, c.lines(t)); err == nil {
			for _, n := range names {
				there[n] = true
			}
		}
	}
	var out []string
	for _, v := range all {
		if name, _, _ := strings.Cut(v.Cosigner, "+"); !there[name] {
			out = append(out, v.Name)
		}
	}
	return out
}
