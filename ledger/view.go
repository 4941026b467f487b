// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"encoding/hex"

	"github.com/zos-node/zos/spec"
)

// Node is an enrolled node.
type Node struct {
	ID            string            `json:"id"`    // fingerprint of its key
	Index         int64             `json:"index"` // of its enrol entry
	Name          string            `json:"name"`
	Key           string            `json:"key"`
	Labels        map[string]string `json:"labels"`
	Image         string            `json:"image"`
	Voucher       string            `json:"voucher"`
	EnrolledMs    int64             `json:"enrolledMs"`
	HeardMs       int64             `json:"heardMs"`       // ledger time of its last entry
	Lost          bool              `json:"lost"`          // a lease ran out and nothing was heard since
	Capacity      *Capacity         `json:"capacity"`      // nil until published
	CapacityIndex int64             `json:"capacityIndex"` // of its capacity entry
	Used          Use               `json:"used"`
}

// Deployment is a registered deployment, one version of it.
type Deployment struct {
	ID           int64               `json:"id"` // log index of its register entry
	Name         string              `json:"name"`
	Version      int64               `json:"version"`
	Digest       string              `json:"digest"` // of the spec's bytes
	Entry        string              `json:"entry"`  // digest of the register entry
	RootVersion  int64               `json:"rootVersion"`
	Roles        map[string][]string `json:"roles"` // who signed: role to key fingerprints
	RegisteredMs int64               `json:"registeredMs"`
	SinceMs      int64               `json:"sinceMs"` // when the present attempt began
	Attempt      int64               `json:"attempt"`
	Claims       []int64             `json:"claims"`
	Past         []string            `json:"past"`     // nodes that gave up an attempt
	Failed       int64               `json:"failed"`   // claims that were closed as failed
	Stopped      int64               `json:"stopped"`  // index of the stop entry, or -1
	Replaced     int64               `json:"replaced"` // index of the next version, or -1
	StopReason   string              `json:"stopReason"`
	Spec         *spec.Deployment    `json:"-"`
	Envelope     []byte              `json:"-"` // the register entry
}

// States of a grant. Only an active one has a lease and reserves anything.
const (
	GrantActive   = "active"
	GrantReleased = "released" // given back
	GrantExpired  = "expired"  // not renewed in time
	GrantClosed   = "closed"
)

// Grant is a claim that was granted. Index is its fencing token.
type Grant struct {
	Index       int64  `json:"index"`
	Deployment  int64  `json:"deployment"`
	Node        string `json:"node"`
	Attempt     int64  `json:"attempt"`
	State       string `json:"state"`
	GrantedMs   int64  `json:"grantedMs"`
	ExpiresMs   int64  `json:"expiresMs"`
	EndedMs     int64  `json:"endedMs"`    // when the lease ended, or -1
	Records     int64  `json:"records"`    // how many records it has
	LastRecord  string `json:"lastRecord"` // digest of the last one, "" if none: the next one's Previous
	Phase       string `json:"phase"`      // of the last record
	Result      string `json:"result"`     // of the last record
	Running     bool   `json:"running"`
	Error       string `json:"error"` // of the last record that failed
	Incidents   int64  `json:"incidents"`
	CloseResult string `json:"closeResult"` // "" until closed
	CloseReason string `json:"closeReason"`
}

// Closed says whether the claim's story has ended.
func (g *Grant) Closed() bool { return g.CloseResult != "" }

// Recorded is a record on the ledger.
type Recorded struct {
	Index  int64   `json:"index"`
	TimeMs int64   `json:"timeMs"`
	Record *Record `json:"record"`
}

// Reported is an incident on the ledger.
type Reported struct {
	Index    int64     `json:"index"`
	TimeMs   int64     `json:"timeMs"`
	Node     string    `json:"node"`
	Incident *Incident `json:"incident"`
}

// Size is the number of entries.
func (s *State) Size() int64 { return s.tree.Size() }

// RootHash is the Merkle root of all entries, 64 hex digits.
func (s *State) RootHash() string {
	h := s.tree.Hash()
	return hex.EncodeToString(h[:])
}

// TimeMs is the ledger time: that of the last block.
func (s *State) TimeMs() int64 { return s.timeMs }

// Height is that of the last block.
func (s *State) Height() int64 { return s.height }

// Acted is the present state for an entry that acts on it.
func (s *State) Acted() Acted { return Acted{s.Size(), s.RootHash()} }

// Root is the current root of trust, nil on an empty log.
func (s *State) Root() *Root {
	if len(s.roots) == 0 {
		return nil
	}
	return s.roots[len(s.roots)-1].Root
}

// RootEnvelope is the entry of a root version, nil if there is none.
func (s *State) RootEnvelope(version int64) []byte {
	if version < 1 || version > int64(len(s.roots)) {
		return nil
	}
	return s.roots[version-1].Envelope
}

// RootAt is the root of trust of a version, nil if there is none.
func (s *State) RootAt(version int64) *Root {
	if version < 1 || version > int64(len(s.roots)) {
		return nil
	}
	return s.rootAt(version)
}

func (s *State) rootAt(version int64) *Root { return s.roots[version-1].Root }

// Node finds an enrolled node by its id, nil if there is none.
func (s *State) Node(id string) *Node {
	if i, ok := s.nodeByID[id]; ok {
		return s.nodes.get(i)
	}
	return nil
}

// Nodes are all enrolled nodes in the order of their enrolment.
func (s *State) Nodes() []*Node { return s.nodes.vals[:len(s.nodes.vals):len(s.nodes.vals)] }

// Deployment finds a deployment by the index of its register entry.
func (s *State) Deployment(id int64) *Deployment { return s.deployments.get(id) }

// DeploymentByName is the newest version of a name, nil if there is none.
func (s *State) DeploymentByName(name string) *Deployment {
	if i, ok := s.newest[name]; ok {
		return s.deployments.get(i)
	}
	return nil
}

// Deployments are all versions of all deployments in log order.
func (s *State) Deployments() []*Deployment {
	return s.deployments.vals[:len(s.deployments.vals):len(s.deployments.vals)]
}

// Claim finds a grant by its index.
func (s *State) Claim(index int64) *Grant { return s.claims.get(index) }

// Claims are the grants of a deployment in log order.
func (s *State) Claims(deployment int64) []*Grant {
	d := s.Deployment(deployment)
	if d == nil {
		return nil
	}
	var all []*Grant
	for _, c := range d.Claims {
		all = append(all, s.claims.get(c))
	}
	return all
}

// ClaimsOf are the grants of a node that are not closed, in log order.
func (s *State) ClaimsOf(node string) []*Grant {
	var all []*Grant
	for _, g := range s.claims.vals {
		if g.Node == node && !g.Closed() {
			all = append(all, g)
		}
	}
	return all
}

// Records are those of a claim in their order.
func (s *State) Records(claim int64) []Recorded {
	r := s.records[claim]
	return r[:len(r):len(r)]
}

// Incidents are all that were reported.
func (s *State) Incidents() []Reported { return s.incidents[:len(s.incidents):len(s.incidents)] }

// Indexed says under which index an entry, or one that says the same, stands.
func (s *State) Indexed(e *Entry) (int64, bool) {
	i, ok := s.seen.get(e.id())
	return i, ok
}

// States of a deployment.
const (
	Registered = "registered" // no node has it
	Claimed    = "claimed"    // nodes have it, not all of them run it yet
	Running    = "running"    // every replica runs
	Failed     = "failed"     // at least one replica failed for good
	Stopping   = "stopping"   // stopped or replaced; a node has not closed its claim yet
	Stopped    = "stopped"
	Replaced   = "replaced"
)

// Leases is the number of claims whose lease runs.
func (s *State) Leases() int { return len(s.active) }

// Status is the state of a deployment in one word.
func (s *State) Status(d *Deployment) string {
	var active, running int64
	for _, g := range s.Claims(d.ID) {
		if g.State == GrantActive {
			active++
			if g.Running {
				running++
			}
		}
	}
	switch {
	case d.Stopped >= 0 || d.Replaced >= 0:
		if active > 0 {
			return Stopping
		}
		if d.Stopped >= 0 {
			return Stopped
		}
		return Replaced
	case d.Failed > 0:
		return Failed
	case running >= d.Spec.Placement.Replicas:
		return Running
	case active > 0:
		return Claimed
	}
	return Registered
}

// StateRoot is the digest of the state as the last block leaf has it, 64 hex
// digits.
func (s *State) StateRoot() string { return hex.EncodeToString(s.last[:]) }
