// SPDX-License-Identifier: Apache-2.0

package ledger

import "github.com/zos-node/zos/sign"

// MaxEntry bounds one entry: a tile bundle stores its length in 16 bits.
const MaxEntry = 65535

// Every entry on the ledger is one DSSE envelope. Its payload type says what
// it is and, through sign.Namespace, which SSHSIG namespace signs it. Block
// entries alone have no signature: the checkpoint covers them.
const (
	TypeRoot       = "application/vnd.zos.root.v1+json"
	TypeVoucher    = "application/vnd.zos.voucher.v1+json" // never an entry by itself: inside an enrol entry
	TypeEnrol      = "application/vnd.zos.enrol.v1+json"
	TypeCapacity   = "application/vnd.zos.capacity.v1+json"
	TypeDeployment = "application/vnd.zos.deployment.v1+json" // register: payload = the exact spec bytes
	TypeStop       = "application/vnd.zos.stop.v1+json"
	TypeRevoke     = "application/vnd.zos.revoke.v1+json"
	TypeClaim      = "application/vnd.zos.claim.v1+json"
	TypeRenew      = "application/vnd.zos.renew.v1+json"
	TypeRelease    = "application/vnd.zos.release.v1+json"
	TypeRecord     = "application/vnd.zos.record.v1+json"
	TypeIncident   = "application/vnd.zos.incident.v1+json"
	TypeClose      = "application/vnd.zos.close.v1+json"
	TypeBlock      = "application/vnd.zos.block.v1+json"
)

// Root is the root of trust: who may say what, and which keys make a
// checkpoint valid. Version N+1 needs the "root" role's threshold of N and of
// N+1 (TUF's rule). Entry 0 of every log is root version 1.
type Root struct {
	Version int64       `json:"version"`
	Log     LogPolicy   `json:"log"`
	Policy  sign.Policy `json:"policy"`
	// Require lists, per entry type, the roles of Policy that must each reach
	// their threshold: "root", "deployment", "stop", "voucher", and, where the
	// ledger also says what software nodes run, "release".
	Require map[string][]string `json:"require"`
	Lease   LeasePolicy         `json:"lease"`
}

// LogPolicy says which checkpoints are to be believed: those that a Quorum of
// the validators cosigned, which is always more than two thirds of them.
type LogPolicy struct {
	Origin     string      `json:"origin"` // C2SP checkpoint origin line
	Validators []Validator `json:"validators"`
	Quorum     int64       `json:"quorum"` // how many distinct validators a checkpoint needs
}

// Validator is one of those who order entries and cosign checkpoints. Each is
// run by an operator of its own, with keys that nobody else has.
type Validator struct {
	Name      string `json:"name"`      // DNS label, for people
	Log       string `json:"log"`       // note verifier key (vkey) under the name of the origin
	Cosigner  string `json:"cosigner"`  // vkey (cosignature/v1)
	Consensus string `json:"consensus"` // Ed25519 public key that votes on blocks, base64
	Mirror    string `json:"mirror"`    // base URL of its copy of the log, or ""
}

// QuorumOf is the smallest number that is more than two thirds of n.
func QuorumOf(n int) int64 { return int64(2*n/3 + 1) }

// LeasePolicy holds the times of claiming, in milliseconds of ledger time.
type LeasePolicy struct {
	WindowMs int64 `json:"windowMs"` // rank k may claim from T0 + k*WindowMs
	LeaseMs  int64 `json:"leaseMs"`  // a claim holds so long without renewal
	GraceMs  int64 `json:"graceMs"`  // added after the ledger stood still
}

// Acted is the log state that a node acted on. Apply refuses an entry whose
// pair is not a state that this log had.
type Acted struct {
	Size int64  `json:"size"`
	Root string `json:"root"` // 64 hex digits
}

// Voucher lets nodes enrol. Signed by the roles of Require["voucher"]. An
// enrolment shows it to everybody, so it is worth nothing by itself: whoever
// uses it has to have the private half of Key.
type Voucher struct {
	ID     string            `json:"id"`     // unique on the ledger
	Uses   int64             `json:"uses"`   // how many enrolments it is good for
	Key    string            `json:"key"`    // of the voucher itself, authorized_keys form
	Labels map[string]string `json:"labels"` // what the operator says of the nodes
}

// Enrol makes a node known. It has two signatures: by Key, which is the
// node's own, and by the voucher's key.
type Enrol struct {
	Name    string        `json:"name"`    // DNS label, for people
	Key     string        `json:"key"`     // authorized_keys form, "ssh-ed25519 AAAA…"; its fingerprint is the node id
	Voucher sign.Envelope `json:"voucher"` // whole envelope of a Voucher or an ExpiringVoucher
	Image   string        `json:"image"`   // version and digest of the image that the node says it booted
	Acted   Acted         `json:"acted"`
}

// Capacity is what a node offers. The newest one counts.
type Capacity struct {
	Arch       string     `json:"arch"`
	VCPUs      int64      `json:"vcpus"`
	MemoryMiB  int64      `json:"memoryMiB"`  // for guests, the node's own need already taken off
	StorageMiB int64      `json:"storageMiB"` // for images and volumes
	Hypervisor Hypervisor `json:"hypervisor"`
	Addresses  []string   `json:"addresses"` // where gateways are reached
	Boot       Boot       `json:"boot"`
	Acted      Acted      `json:"acted"`
}

// Boot is what vouches for a node's present boot, as the node itself says it:
// nobody else has attested to it.
type Boot struct {
	SecureBoot string   `json:"secureBoot"` // "on", "off", "setup mode", or "none": no UEFI variables
	PCR11      string   `json:"pcr11"`      // register 11 of its TPM (SHA-256), 64 hex digits; "": none that could vouch for anything
	Key        string   `json:"key"`        // who can read the node's key, one of BootKeys
	Lacks      []string `json:"lacks"`      // what the node cannot promise, in words
}

// BootKeys are the values of Boot.Key: only its TPM under an image of the same
// maker; whoever has the disk; whoever has the recovery key; nobody, and it is
// gone with the next boot.
var BootKeys = []string{"sealed", "clear", "recovery", "memory"}

// Hypervisor names the driver and the exact program that runs guests.
type Hypervisor struct {
	Name    string `json:"name"`    // "cloud-hypervisor" or "qemu"
	Version string `json:"version"` // as the program says it
	Digest  string `json:"digest"`  // "sha256:<hex>" of the program
	Source  string `json:"source"`  // "release" (digest known from the release), "local" or "debian"
}

// Stop ends a deployment. Signed by the roles of Require["stop"].
type Stop struct {
	Deployment int64  `json:"deployment"` // log index of its register entry
	Name       string `json:"name"`       // must be that deployment's name
	Reason     string `json:"reason"`
}

// Revoke takes a key out of use. Signed by the roles of Require["root"]. What
// counts is the place in the log: what the key signed before this entry stays
// valid for ever, whatever clocks said; after it, its signatures count for
// nothing. If the key is Compromised, what runs because of it ends as well:
// deployments that it signed are stopped, leases of a node with it end.
type Revoke struct {
	Key         string `json:"key"` // authorized_keys form
	Compromised bool   `json:"compromised"`
	Reason      string `json:"reason"`
}

// Claim is a node's acceptance of a deployment. Its log index is the fencing
// token. Signed by the node.
type Claim struct {
	Deployment int64 `json:"deployment"`
	Attempt    int64 `json:"attempt"`
	Acted      Acted `json:"acted"`
}

// Renew prolongs the lease of a claim.
type Renew struct {
	Claim int64 `json:"claim"`
	Acted Acted `json:"acted"`
}

// Release gives a claim back; the deployment may then be claimed by another node.
type Release struct {
	Claim  int64  `json:"claim"`
	Reason string `json:"reason"`
	Acted  Acted  `json:"acted"`
}

// Record tells how one phase of a deployment went. Seq counts from 0 without
// a gap within a claim; Previous is the SHA-256 of the envelope bytes of the
// record before it ("" for the first), so that a lost one shows.
type Record struct {
	Claim      int64             `json:"claim"` // -1 for phases before the claim was granted is not used: those are sent after it
	Seq        int64             `json:"seq"`
	Previous   string            `json:"previous"` // "sha256:<hex>" or ""
	Phase      string            `json:"phase"`
	Result     string            `json:"result"`     // "ok", "failed" or "undone"
	StartedMs  int64             `json:"startedMs"`  // node's wall clock, Unix milliseconds
	DurationMs int64             `json:"durationMs"` // monotonic
	Bytes      int64             `json:"bytes"`      // moved in this phase
	Digests    map[string]string `json:"digests"`    // what was checked or made, such as "plan", "kernel/web", "guestKey/web"
	Detail     string            `json:"detail"`     // what was seen, for people
	Error      string            `json:"error"`      // "" when ok
	Acted      Acted             `json:"acted"`
}

// Incident is something that should not happen: a check that failed while
// the deployment ran, a mirror that lied, a ledger that forked.
type Incident struct {
	Claim   int64  `json:"claim"`   // -1 when it concerns no claim
	Kind    string `json:"kind"`    // stable word, such as "guest-panic", "chunk-mismatch", "checkpoint-rollback"
	Machine string `json:"machine"` // or ""
	Detail  string `json:"detail"`
	Acted   Acted  `json:"acted"`
}

// Close ends the story of a claim: nothing of it runs any more.
type Close struct {
	Claim   int64  `json:"claim"`
	Records int64  `json:"records"` // how many records the claim has
	Result  string `json:"result"`  // "stopped", "failed", "replaced" or "released"
	Reason  string `json:"reason"`
	Acted   Acted  `json:"acted"`
}

// Block is the last leaf of each block that carried an entry.
type Block struct {
	Height    int64  `json:"height"`
	TimeMs    int64  `json:"timeMs"`    // ledger time, Unix milliseconds
	StateRoot string `json:"stateRoot"` // 64 hex digits
}
