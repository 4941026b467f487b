// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"slices"
)

// releaseRoles is what a root of trust has to name roles for before it lets
// anybody say what nodes run. Roots that are older than these entries do not.
const releaseRoles = "release"

// applySoftware takes what people sign about the node's own software.
func (s *State) applySoftware(a at, e *Entry, keys []string) (func(), error) {
	root := s.Root()
	if len(root.Require[releaseRoles]) == 0 {
		return nil, refuse("payloadType", "is %s, but root version %d names no role that may sign releases (require.release): the next root can", e.Type, root.Version)
	}
	if err := root.check(releaseRoles, keys, nil); err != nil {
		return nil, refusal("signatures", err)
	}
	switch p := e.Payload.(type) {
	case *NodeRelease:
		return s.applyNodeRelease(a, e, p, nil)
	case *ChunkedRelease:
		r, lists := p.Parts()
		return s.applyNodeRelease(a, e, r, lists)
	case *Rollout:
		return s.applyRollout(a, p)
	}
	return nil, refuse("payloadType", "is %s, which has no rule", e.Type)
}

// applyNodeRelease makes a version known, which then stands for these images
// for ever.
func (s *State) applyNodeRelease(a at, e *Entry, p *NodeRelease, lists []string) (func(), error) {
	for _, r := range s.releases.vals {
		if r.Version == p.Version {
			return nil, refuse("payload.version", "is %s, which entry %d released already: a version stands for its images for ever", p.Version, r.ID)
		}
	}
	r := Released{ID: a.index, Version: p.Version, Digest: HashEntry(e.Envelope.Payload), ReleasedMs: a.timeMs, Release: *p, Chunks: lists}
	return func() { s.releases.put(a.index, r) }, nil
}

// applyRollout sends a release on its way. Never below the floor.
func (s *State) applyRollout(a at, p *Rollout) (func(), error) {
	r := s.releases.get(p.Release)
	floor := s.Floor()
	switch {
	case r == nil:
		return nil, refuse("payload.release", "is %d, where nothing was released", p.Release)
	case r.Version != p.Version:
		return nil, refuse("payload.version", "is %s, but entry %d released %s", p.Version, p.Release, r.Version)
	case floor != "" && CompareVersions(p.Version, floor) < 0:
		return nil, refuse("payload.version", "is %s, but no node may run less than %s any more", p.Version, floor)
	case p.Floor != "" && floor != "" && CompareVersions(p.Floor, floor) < 0:
		return nil, refuse("payload.floor", "is %s, but the floor is %s already and never goes down", p.Floor, floor)
	}
	for _, old := range s.rollouts.vals {
		if old.Rollout.says(p) {
			return nil, refuse("payload", "is what entry %d rolls out already: another signature does not begin it anew; sign one with another pace, say", old.ID)
		}
	}
	out := Rolled{ID: a.index, SinceMs: a.timeMs, Rollout: *p}
	return func() { s.rollouts.put(a.index, out) }, nil
}

// says whether two rollouts are the same but for who signed them. Who has one
// from the log and adds a signature of any key, or leaves one out that is not
// needed, has another entry; were it taken, everybody could put an old rollout in
// the place of the newest, and begin one again that its failures had stopped.
func (p *Rollout) says(q *Rollout) bool {
	return p.Release == q.Release && p.Version == q.Version && maps.Equal(p.Labels, q.Labels) && slices.Equal(p.Waves, q.Waves) &&
		p.PaceMs == q.PaceMs && p.Floor == q.Floor && p.MaxFailed == q.MaxFailed
}

// applyUpdate notes how a node fares. Its last word counts: a node that came
// back from a trial as another enrolment is known by its name.
func (s *State) applyUpdate(a at, p *Update, node *Node) (func(), error) {
	r := s.rollouts.get(p.Rollout)
	if r == nil {
		return nil, refuse("payload.rollout", "is %d, where no rollout was signed", p.Rollout)
	}
	if p.Version != r.Rollout.Version {
		return nil, refuse("payload.version", "is %s, but entry %d rolls %s out", p.Version, p.Rollout, r.Rollout.Version)
	}
	if p.Result == UpdateBlessed && p.Running != p.Version {
		return nil, refuse("payload.running", "is %s, but blessed is what runs: %s", p.Running, p.Version)
	}
	if p.Result == UpdateRolledBack && p.Running == p.Version {
		return nil, refuse("payload.running", "is %s, from which the node says that it went back", p.Running)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	now, said := *r, Updated{Index: a.index, TimeMs: a.timeMs, Rollout: p.Rollout, Node: node.ID, Name: node.Name, Version: p.Version, Result: p.Result, Running: p.Running, Reason: p.Reason}
	if before := s.Updated(p.Rollout, node.Name); before != nil {
		now.count(before.Result, -1)
	}
	now.count(said.Result, 1)
	return func() {
		s.rollouts.put(r.ID, now)
		s.updates.put(a.index, said)
		s.updatedBy[updateKey{p.Rollout, node.Name}] = a.index
	}, nil
}

func (r *Rolled) count(result string, n int64) {
	switch result {
	case UpdateTrying:
		r.Trying += n
	case UpdateBlessed:
		r.Blessed += n
	case UpdateRolledBack, UpdateFailed:
		r.Failed += n
	}
}
