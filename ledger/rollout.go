// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"time"
)

// Released is a version of the node's image on the ledger.
type Released struct {
	ID         int64       `json:"id"` // log index of its entry
	Version    string      `json:"version"`
	Digest     string      `json:"digest"` // of what was signed
	ReleasedMs int64       `json:"releasedMs"`
	Release    NodeRelease `json:"release"`
	// Chunks are the digests of the lists of chunks of Release.Images, in their
	// order; none of a release that did not bind them.
	Chunks []string `json:"chunks,omitempty"`
}

// list is the digest of the list of chunks of a board's image, "" for none.
func (r *Released) list(board string) string {
	i := slices.IndexFunc(r.Release.Images, func(i ReleaseImage) bool { return i.Board == board })
	if i < 0 || i >= len(r.Chunks) {
		return ""
	}
	return r.Chunks[i]
}

// Image is the UKI of a board, nil if the release has none.
func (r *Released) Image(board string) *ReleaseImage {
	for i := range r.Release.Images {
		if r.Release.Images[i].Board == board {
			return &r.Release.Images[i]
		}
	}
	return nil
}

// Rolled is a rollout on the ledger, with how many nodes stand where with it,
// each by its last word.
type Rolled struct {
	ID      int64   `json:"id"` // log index of its entry
	SinceMs int64   `json:"sinceMs"`
	Trying  int64   `json:"trying"`
	Blessed int64   `json:"blessed"`
	Failed  int64   `json:"failed"` // went back, or could not put it in place
	Rollout Rollout `json:"rollout"`
}

// Halted says that too many nodes failed: nobody begins any more.
func (r *Rolled) Halted() bool { return r.Failed >= r.Rollout.MaxFailed }

// Updated is what a node said about a rollout.
type Updated struct {
	Index   int64  `json:"index"`
	TimeMs  int64  `json:"timeMs"`
	Rollout int64  `json:"rollout"`
	Node    string `json:"node"`
	Name    string `json:"name"`
	Version string `json:"version"`
	Result  string `json:"result"`
	Running string `json:"running"`
	Reason  string `json:"reason"`
}

type updateKey struct {
	rollout int64
	name    string
}

// hasSoftware says whether anything was ever released: rollouts and updates
// need a release.
func (s *State) hasSoftware() bool { return s.releases.len() > 0 }

// Releases are all versions of the node's image, in log order.
func (s *State) Releases() []*Released {
	return s.releases.vals[:len(s.releases.vals):len(s.releases.vals)]
}

// Released finds a release by the index of its entry.
func (s *State) Released(id int64) *Released { return s.releases.get(id) }

// Rollouts are all rollouts, in log order.
func (s *State) Rollouts() []*Rolled {
	return s.rollouts.vals[:len(s.rollouts.vals):len(s.rollouts.vals)]
}

// Updates are what nodes said about rollouts, in log order.
func (s *State) Updates() []*Updated {
	return s.updates.vals[:len(s.updates.vals):len(s.updates.vals)]
}

// Updated is the last word of a node, by name, about a rollout; nil if it said
// nothing.
func (s *State) Updated(rollout int64, name string) *Updated {
	if i, ok := s.updatedBy[updateKey{rollout, name}]; ok {
		return s.updates.get(i)
	}
	return nil
}

// Floor is the lowest version that a node may run, "" when there is none.
func (s *State) Floor() string {
	floor := ""
	for _, r := range s.rollouts.vals {
		if f := r.Rollout.Floor; f != "" && CompareVersions(f, floor) > 0 {
			floor = f
		}
	}
	return floor
}

// NodeFacts is what decides about a node's software: what it is and what it
// knows by itself.
type NodeFacts struct {
	Name    string // by which it keeps its place among the waves
	Labels  map[string]string
	Board   string
	Version string // that runs
	// Tried are rollouts that this machine remembers to have failed with, also
	// when its last word did not reach the ledger.
	Tried []int64
}

// Target is what a node should run next.
type Target struct {
	Rollout int64
	Version string
	Image   ReleaseImage
	Chunks  string // digest of the image's list of chunks, "" for none
	Mirrors []string
}

// NextUpdate decides which release a node tries now, or says why none. It is
// pure: every reader of the ledger comes to the same, for every node.
func (s *State) NextUpdate(f NodeFacts, nowMs int64) (*Target, string) {
	r := s.rolloutFor(f.Labels)
	if r == nil {
		return nil, "no rollout is for this node"
	}
	version := r.Rollout.Version
	switch {
	case version == f.Version:
		return nil, fmt.Sprintf("it runs %s already, which rollout %d is for", version, r.ID)
	case CompareVersions(version, f.Version) < 0:
		return nil, fmt.Sprintf("it runs %s, and rollout %d is for %s: nodes go back by themselves only from a trial", f.Version, r.ID, version)
	case CompareVersions(version, s.Floor()) < 0:
		return nil, fmt.Sprintf("rollout %d is for %s, below the floor %s", r.ID, version, s.Floor())
	case slices.Contains(f.Tried, r.ID):
		return nil, fmt.Sprintf("it failed with rollout %d already; only a new rollout tries again", r.ID)
	}
	if u := s.Updated(r.ID, f.Name); u != nil && (u.Result == UpdateRolledBack || u.Result == UpdateFailed) {
		return nil, fmt.Sprintf("it failed with rollout %d already (%s, entry %d); only a new rollout tries again", r.ID, u.Result, u.Index)
	}
	if r.Halted() {
		return nil, fmt.Sprintf("rollout %d is halted: %d nodes failed with it", r.ID, r.Failed)
	}
	image := s.releases.get(r.Rollout.Release).Image(f.Board)
	if image == nil {
		return nil, fmt.Sprintf("release %s has no image for board %s", version, f.Board)
	}
	if from := r.FromMs(f.Name); nowMs < from {
		return nil, fmt.Sprintf("its wave of rollout %d begins at %s by the ledger's time", r.ID, time.UnixMilli(from).UTC().Format(time.RFC3339))
	}
	released := s.releases.get(r.Rollout.Release)
	return &Target{Rollout: r.ID, Version: version, Image: *image, Chunks: released.list(f.Board), Mirrors: released.Release.Mirrors}, ""
}

// rolloutFor is the newest rollout for a node with these labels.
func (s *State) rolloutFor(labels map[string]string) *Rolled {
	for i := len(s.rollouts.vals) - 1; i >= 0; i-- {
		r := s.rollouts.vals[i]
		fits := true
		for k, v := range r.Rollout.Labels {
			have, ok := labels[k]
			fits = fits && ok && have == v
		}
		if fits {
			return r
		}
	}
	return nil
}

// FromMs is the ledger time from which a node, by name, may begin.
func (r *Rolled) FromMs(name string) int64 {
	place := place(r.ID, name)
	for i, w := range r.Rollout.Waves {
		if place < w {
			return r.SinceMs + int64(i)*r.Rollout.PaceMs
		}
	}
	return r.SinceMs // not reached: the last wave is 100
}

// place is where a node stands among all in one rollout, 0 to 99: nobody can
// choose it, everybody computes the same, and it is another one each time.
func place(rollout int64, name string) int64 {
	b := binary.BigEndian.AppendUint64([]byte("wave1"), uint64(rollout))
	h := sha256.Sum256(append(b, name...))
	return int64(binary.BigEndian.Uint64(h[:8]) % 100)
}

// indexSoftware computes what follows from a snapshot's tables.
func (s *State) indexSoftware() error {
	for i, r := range s.releases.vals {
		if r.ID != s.releases.keys[i] {
			return fmt.Errorf("release %d stands at %d", r.ID, s.releases.keys[i])
		}
	}
	for i, r := range s.rollouts.vals {
		if r.ID != s.rollouts.keys[i] || s.releases.get(r.Rollout.Release) == nil {
			return fmt.Errorf("rollout %d stands at %d, or its release is missing", r.ID, s.rollouts.keys[i])
		}
	}
	for i, u := range s.updates.vals {
		if u.Index != s.updates.keys[i] || s.rollouts.get(u.Rollout) == nil {
			return fmt.Errorf("update %d stands at %d, or its rollout is missing", u.Index, s.updates.keys[i])
		}
		s.updatedBy[updateKey{u.Rollout, u.Name}] = u.Index
	}
	return nil
}
