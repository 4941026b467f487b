// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"encoding/hex"
	"fmt"
	"slices"
	"sync"
	"time"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// statement is what a validator tells the others after each block, and again
// every second: the tree that the block made on its disk, with its signatures,
// and those of others for the same tree.
type statement struct {
	Size   int64    `json:"size"`
	Root   string   `json:"root"`   // 64 hex digits
	Own    []string `json:"own"`    // signature lines of a checkpoint
	Others []string `json:"others"` // the same of other validators
}

const (
	maxStatement   = tiles.MaxCheckpoint
	keepStatements = 64               // trees that are remembered of each peer
	silence        = 10 * time.Second // after which a validator counts as absent
)

func (s statement) tree() (tlog.Tree, error) {
	b, err := hex.DecodeString(s.Root)
	if err != nil || len(b) != tlog.HashSize || s.Size < 0 {
		return tlog.Tree{}, fmt.Errorf("statement of size %d has root %.80q", s.Size, s.Root)
	}
	return tlog.Tree{N: s.Size, Hash: tlog.Hash(b)}, nil
}

// checkpoint is that of its tree, if its own signatures are enough, else nil.
func (s statement) checkpoint(p tiles.Policy) []byte {
	t, err := s.tree()
	if err != nil {
		return nil
	}
	signed, err := p.Complete(t, s.Own)
	if err != nil {
		return nil
	}
	return signed
}

// collector keeps what validators said of trees. It believes nothing:
// signatures are checked when a checkpoint is made of them, under the root of
// trust of then, for whoever joins speaks before the root names it. What one
// peer can make it keep is bounded.
type collector struct {
	signers tiles.Signers
	origin  string

	mu   sync.Mutex
	said map[string]*voice // by peer; "" is this server itself
}

type voice struct {
	heard time.Time
	last  []statement // oldest first
}

func newCollector(s tiles.Signers, origin string) *collector {
	return &collector{signers: s, origin: origin, said: map[string]*voice{}}
}

// sign makes the statement of a tree of our own, and tells nobody.
func (c *collector) sign(t tlog.Tree) (statement, error) {
	lines, err := c.signers.Lines(c.origin, t)
	return statement{t.N, hex.EncodeToString(t.Hash[:]), lines, []string{}}, err
}

// say makes a statement of ours the newest.
func (c *collector) say(s statement, now time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep("", s, now)
}

// hear takes what a peer said.
func (c *collector) hear(from string, b []byte, now time.Time) error {
	var s statement
	if err := strict.Decode(b, &s, maxStatement); err != nil {
		return fmt.Errorf("statement of peer %s: %w", from, err)
	}
	if _, err := s.tree(); err != nil {
		return fmt.Errorf("statement of peer %s: %w", from, err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.keep(from, s, now)
	return nil
}

func (c *collector) keep(from string, s statement, now time.Time) {
	v := c.said[from]
	if v == nil {
		v = &voice{}
		c.said[from] = v
	}
	v.heard = now
	v.last = slices.DeleteFunc(v.last, func(old statement) bool { return old.Size == s.Size && old.Root == s.Root })
	if v.last = append(v.last, s); len(v.last) > keepStatements {
		v.last = slices.Clone(v.last[1:])
	}
}

// message is the newest statement of our own with what others said of the
// same tree, nil if there is none yet.
func (c *collector) message(p tiles.Policy) []byte {
	s, ok := c.own()
	if !ok {
		return nil
	}
	t, err := s.tree()
	if err != nil {
		return nil
	}
	signed, _, err := p.Merge(t, c.lines(t))
	if err == nil {
		for _, line := range tiles.Lines(signed) {
			if line != "" && !slices.Contains(s.Own, line) {
				s.Others = append(s.Others[:len(s.Others):len(s.Others)], line)
			}
		}
	}
	b, err := strict.Encode(s)
	if err != nil || len(b) > maxStatement {
		return nil
	}
	return b
}

// own is our newest statement.
func (c *collector) own() (statement, bool) {
	s, said := c.lately()
	return s, !said.IsZero()
}

// lately is our newest statement and when it was made, at no time if there is none.
func (c *collector) lately() (statement, time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	v := c.said[""]
	if v == nil {
		return statement{}, time.Time{}
	}
	return v.last[len(v.last)-1], v.heard
}

// lines are all signature lines that anybody stated for a tree.
func (c *collector) lines(t tlog.Tree) []string {
	root := hex.EncodeToString(t.Hash[:])
	c.mu.Lock()
	defer c.mu.Unlock()
	var own, others []string
	for _, v := range c.said {
		for _, s := range v.last {
			if s.Size == t.N && s.Root == root {
				own, others = append(own, s.Own...), append(others, s.Others...)
			}
		}
	}
	return append(own, others...)
}

// checkpoint makes the checkpoint of a tree, if enough validators signed it.
func (c *collector) checkpoint(p tiles.Policy, t tlog.Tree) ([]byte, error) {
	return p.Complete(t, c.lines(t))
}

// present names the validators of a policy that were heard from lately: by a
// signature of their own, whichever tree it is for.
func (c *collector) present(p tiles.Policy, now time.Time) []string {
	c.mu.Lock()
	var newest []statement
	for from, v := range c.said {
		if from == "" || now.Sub(v.heard) < silence {
			newest = append(newest, v.last[len(v.last)-1])
		}
	}
	c.mu.Unlock()
	var all []string
	for _, s := range newest {
		if t, err := s.tree(); err == nil {
			if _, names, err := p.Merge(t, s.Own); err == nil {
				all = append(all, names...)
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}
