// SPDX-License-Identifier: Apache-2.0

package ledger

// The entries about the node's own software. The word "release" is taken on
// the ledger: it is a node giving a claim back.
const (
	TypeNodeRelease = "application/vnd.zos.node-release.v1+json"
	TypeRollout     = "application/vnd.zos.rollout.v1+json"
	TypeUpdate      = "application/vnd.zos.update.v1+json"
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
