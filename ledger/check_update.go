// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"net/url"
	"slices"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

const (
	maxUKI     = 1 << 30 // bytes
	maxWaves   = 32
	maxMirrors = 16
	maxBoards  = 64
)

// checkSoftware looks at the values of entries about the node's own software;
// known is false for any other payload.
func checkSoftware(p any) (known bool, err error) {
	switch p := p.(type) {
	case *NodeRelease:
		return true, checkNodeRelease(p)
	case *ChunkedRelease:
		return true, checkChunkedRelease(p)
	case *Rollout:
		return true, checkRollout(p)
	case *Update:
		return true, checkUpdate(p)
	}
	return false, nil
}

func checkNodeRelease(p *NodeRelease) error {
	if err := versional("version", p.Version); err != nil {
		return err
	}
	if len(p.Images) == 0 || len(p.Images) > maxBoards {
		return refuse("images", "has %d entries, want 1 to %d", len(p.Images), maxBoards)
	}
	for i, img := range p.Images {
		at := func(field string) string { return strict.Join(strict.Index("images", i), field) }
		if !isBoard(img.Board) {
			return refuse(at("board"), "is %q, want the name of a board such as \"pc-x86_64\"", img.Board)
		}
		if i > 0 && p.Images[i-1].Board >= img.Board {
			return refuse(at("board"), "is %q after %q, want each board once and in order", img.Board, p.Images[i-1].Board)
		}
		if !spec.IsDigest(img.Digest) {
			return refuse(at("digest"), "is %q, want sha256:<64 hex digits>", img.Digest)
		}
		if img.Size < 1 || img.Size > maxUKI {
			return refuse(at("size"), "is %d, want 1 to %d bytes", img.Size, maxUKI)
		}
	}
	if len(p.Mirrors) > maxMirrors {
		return refuse("mirrors", "has %d entries, at most %d are allowed", len(p.Mirrors), maxMirrors)
	}
	for i, m := range p.Mirrors {
		u, err := url.Parse(m)
		if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || u.RawQuery != "" || u.Fragment != "" || u.User != nil {
			return refuse(strict.Index("mirrors", i), "is %q, want http(s)://host[:port][/path]", m)
		}
	}
	return textual("notes", p.Notes)
}

func checkChunkedRelease(p *ChunkedRelease) error {
	r, lists := p.Parts()
	if err := checkNodeRelease(r); err != nil {
		return err
	}
	for i, l := range lists {
		if !spec.IsDigest(l) {
			return refuse(strict.Join(strict.Index("images", i), "chunks"), "is %q, want sha256:<64 hex digits>", l)
		}
	}
	return nil
}

// Validate checks a rollout by itself; whether the release that it names is on the
// ledger, a State says.
func (p *Rollout) Validate() error { return checkRollout(p) }

func checkRollout(p *Rollout) error {
	if err := firstError(natural("release", p.Release), versional("version", p.Version), checkLabels(p.Labels), natural("paceMs", p.PaceMs)); err != nil {
		return err
	}
	n := len(p.Waves)
	if n == 0 || n > maxWaves || p.Waves[n-1] != 100 {
		return refuse("waves", "are %v, want 1 to %d percentages of which the last is 100", p.Waves, maxWaves)
	}
	for i, w := range p.Waves {
		if w < 1 || i > 0 && w <= p.Waves[i-1] {
			return refuse(strict.Index("waves", i), "is %d, want more than the wave before it, and at least 1", w)
		}
	}
	if n > 1 && p.PaceMs == 0 {
		return refuse("paceMs", "is 0, but %d waves at once are one", n)
	}
	if p.MaxFailed < 1 || p.MaxFailed > maxNumber {
		return refuse("maxFailed", "is %d, want 1 or more", p.MaxFailed)
	}
	if p.Floor == "" {
		return nil
	}
	if err := versional("floor", p.Floor); err != nil {
		return err
	}
	if CompareVersions(p.Floor, p.Version) > 0 {
		return refuse("floor", "is %s, which is above the version of the rollout itself, %s", p.Floor, p.Version)
	}
	if len(p.Labels) > 0 {
		return refuse("floor", "is %s, but only a rollout to all nodes, without labels, may raise the floor", p.Floor)
	}
	return nil
}

func checkUpdate(p *Update) error {
	if !slices.Contains([]string{UpdateTrying, UpdateBlessed, UpdateRolledBack, UpdateFailed}, p.Result) {
		return refuse("result", "is %q, want %s, %s, %s or %s", p.Result, UpdateTrying, UpdateBlessed, UpdateRolledBack, UpdateFailed)
	}
	return firstError(natural("rollout", p.Rollout), versional("version", p.Version), versional("running", p.Running), textual("reason", p.Reason), checkActed(p.Acted))
}

func versional(field, v string) error {
	if !ValidVersion(v) {
		return refuse(field, "is %q, want a version such as \"1.4.0\": two to four numbers", v)
	}
	return nil
}
