// SPDX-License-Identifier: Apache-2.0

package ledger

// The entries about the node's own software. The word "release" is taken on
// the ledger: it is a node giving a claim back.
const (
	TypeNodeRelease = "application/vnd.zos.node-release.v1+json"
	TypeRollout     = "application/vnd.zos.rollout.v1+json"
	TypeUpdate      = "application/vnd.zos.update.v1+json"
	// TypeChunkedRelease is a node-release whose images are bound chunk by chunk.
	TypeChunkedRelease = "application/vnd.zos.chunked-release.v1+json"
)

// NodeRelease makes a version of the node's image known; nothing runs it yet.
// Signed by the roles of Require["release"].
type NodeRelease struct {
	Version string         `json:"version"` // see ValidVersion; once on the ledger, always these images
	Images  []ReleaseImage `json:"images"`  // one for each board, in the order of their names
	Mirrors []string       `json:"mirrors"` // base URLs beside those of a node's seed; none is trusted
	Notes   string         `json:"notes"`   // for people
}

// ReleaseImage is the UKI of one board. Mirrors have it under its digest.
type ReleaseImage struct {
	Board  string `json:"board"`
	Digest string `json:"digest"` // "sha256:<hex>" of the UKI
	Size   int64  `json:"size"`   // bytes
}

// ChunkedRelease is a NodeRelease that binds how each image is cut, so that
// nodes check every chunk before they keep it. It is an entry of its own: no
// field of an entry may be absent, and ledgers of before have none for it. Nodes
// and validators that are older than it do not know it.
type ChunkedRelease struct {
	Version string         `json:"version"`
	Images  []ChunkedImage `json:"images"`
	Mirrors []string       `json:"mirrors"`
	Notes   string         `json:"notes"`
}

// ChunkedImage is a ReleaseImage with its list.
type ChunkedImage struct {
	Board  string `json:"board"`
	Digest string `json:"digest"`
	Size   int64  `json:"size"`
	Chunks string `json:"chunks"` // "sha256:<hex>" of its zimage.ChunkList, which mirrors have as a blob
}

// Parts are the release as it would be without, and the list of each image.
func (p *ChunkedRelease) Parts() (*NodeRelease, []string) {
	r, lists := &NodeRelease{Version: p.Version, Images: make([]ReleaseImage, len(p.Images)), Mirrors: p.Mirrors, Notes: p.Notes}, make([]string, len(p.Images))
	for i, img := range p.Images {
		r.Images[i], lists[i] = ReleaseImage{img.Board, img.Digest, img.Size}, img.Chunks
	}
	return r, lists
}

// Rollout says which nodes take a release, and how fast. For each node the
// newest rollout whose labels it has counts, and no other. Signed by the roles
// of Require["release"].
type Rollout struct {
	Release int64  `json:"release"` // log index of its release entry
	Version string `json:"version"` // must be that release's
	// Labels are what a node must have, all of them; none: every node.
	Labels map[string]string `json:"labels"`
	// Waves are the percentages of these nodes that may have begun, ascending;
	// the last is 100. The first may begin at once, each other one PaceMs of
	// ledger time after the one before it.
	Waves  []int64 `json:"waves"`
	PaceMs int64   `json:"paceMs"`
	// Floor is the lowest version that any node may run from now on; "" leaves
	// it as it is. It never goes down, and only a rollout to all nodes raises it.
	Floor string `json:"floor"`
	// MaxFailed nodes that went back, or could not put the release in place,
	// stop the rollout for all that have not begun.
	MaxFailed int64 `json:"maxFailed"`
}

// Results of an Update.
const (
	UpdateTrying     = "trying"      // it is in place; the node starts again with it
	UpdateBlessed    = "blessed"     // it runs, was found healthy, and is what the node starts from now on
	UpdateRolledBack = "rolled-back" // it was tried and did not become healthy: the version before runs again
	UpdateFailed     = "failed"      // it could not be put in place
)

// Update tells how a node fares with a rollout. Signed by the node.
type Update struct {
	Rollout int64  `json:"rollout"` // log index of its entry
	Version string `json:"version"` // that was to be run
	Result  string `json:"result"`
	Running string `json:"running"` // what runs now
	Reason  string `json:"reason"`  // for people
	Acted   Acted  `json:"acted"`
}
