// SPDX-License-Identifier: Apache-2.0

package ledgertest

import (
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// Node is an enrolled node with a key.
type Node struct {
	l    *Log
	Key  sign.Signer
	ID   string
	Name string
}

// NewNode makes a node's key; Enrol lets it in.
func (l *Log) NewNode(name string) *Node {
	l.t.Helper()
	k := Key(l.t)
	return &Node{l, k, k.KeyID(), name}
}

// EnrolEntry is the node's enrolment with a voucher.
func (n *Node) EnrolEntry(voucher sign.Envelope) []byte {
	n.l.t.Helper()
	b, err := ledger.NewEntry(ledger.TypeEnrol,
		ledger.Enrol{Name: n.Name, Key: n.Key.PublicKey(), Voucher: voucher, Image: "test", Acted: n.l.Acted()}, n.Key, n.l.Keys["voucher"])
	if err != nil {
		n.l.t.Fatal(err)
	}
	return b
}

// Entry signs a payload with the node's key.
func (n *Node) Entry(payloadType string, payload any) []byte {
	n.l.t.Helper()
	b, err := ledger.NewEntry(payloadType, payload, n.Key)
	if err != nil {
		n.l.t.Fatal(err)
	}
	return b
}

// Capacity is what the nodes of Join offer.
func (n *Node) Capacity(memoryMiB int64) ledger.Capacity {
	return ledger.Capacity{Arch: "amd64", VCPUs: 4, MemoryMiB: memoryMiB, StorageMiB: 10_000,
		Hypervisor: ledger.Hypervisor{Name: "qemu", Version: "10", Digest: Digest("qemu"), Source: "debian"},
		Addresses:  []string{"10.0.0.1"}, Boot: Boot(), Acted: n.l.Acted()}
}

// Boot is that of a node that has nothing to vouch for it.
func Boot() ledger.Boot {
	return ledger.Boot{SecureBoot: "none", PCR11: "", Key: "memory", Lacks: []string{"no TPM"}}
}

// Join enrols a node that has memory to give.
func (l *Log) Join(name string, memoryMiB int64) *Node {
	l.t.Helper()
	n := l.NewNode(name)
	l.Must(n.EnrolEntry(l.Voucher("voucher-"+name, 1, map[string]string{"site": "test"})))
	l.Must(n.Entry(ledger.TypeCapacity, n.Capacity(memoryMiB)))
	return n
}

// Claim is the node's claim entry for a deployment, at its present attempt.
func (n *Node) Claim(deployment int64) []byte {
	n.l.t.Helper()
	d := n.l.State().Deployment(deployment)
	return n.Entry(ledger.TypeClaim, ledger.Claim{Deployment: deployment, Attempt: d.Attempt, Acted: n.l.Acted()})
}

// Record is the next record of a claim.
func (n *Node) Record(claim int64, phase, result string, digests map[string]string) []byte {
	n.l.t.Helper()
	g := n.l.State().Claim(claim)
	r := ledger.Record{Claim: claim, Seq: g.Records, Previous: g.LastRecord, Phase: phase, Result: result,
		StartedMs: Epoch, DurationMs: 5, Digests: digests, Acted: n.l.Acted()}
	if result == "failed" {
		r.Error = "it did not work"
	}
	return n.Entry(ledger.TypeRecord, r)
}

// Digest is the digest of a word, for fields that want one.
func Digest(s string) string { return spec.Digest([]byte(s)) }

// Spec is a small valid deployment; edit changes it.
func (l *Log) Spec(name string, version int64, edit func(*spec.Deployment)) []byte {
	l.t.Helper()
	d := spec.Deployment{
		APIVersion: spec.APIVersion, Kind: spec.Kind, Metadata: spec.Metadata{Name: name, Version: version},
		Placement: spec.Placement{Replicas: 1, Arch: "amd64", OnPartition: "stop"},
		Networks:  []spec.Network{{Name: "net", Subnet: "10.42.0.0/24", Isolation: "isolated"}},
		Gateways:  []spec.Gateway{{Name: "web", Protocol: "tcp", Port: 8080, Machine: "web", Network: "net", TargetPort: 80}},
		Machines: []spec.Machine{{
			Name: "web", Hypervisor: "any", VCPUs: 1, MemoryMiB: 512, Kernel: Digest("kernel"), Initramfs: Digest("initramfs"), Cmdline: "console=ttyS0",
			Image:      spec.Image{OCI: Digest("oci"), Platform: "linux/amd64", ID: Digest("image"), VerityRoot: strings.TrimPrefix(Digest("verity"), "sha256:")},
			Process:    spec.Process{Args: []string{"/web"}, Cwd: "/", User: "1000:1000", StopSignal: "SIGTERM", StopGraceMs: 1000},
			Interfaces: []spec.Interface{{Network: "net", Address: "10.42.0.2"}},
			Health:     spec.Health{Kind: "none"},
			Failure:    spec.Failure{Action: "end"},
		}},
		Security: spec.Security{Attestation: "none"},
	}
	if edit != nil {
		edit(&d)
	}
	b, err := d.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// Register is a register entry with all signatures that the policy wants.
func (l *Log) Register(name string, version int64, edit func(*spec.Deployment)) []byte {
	l.t.Helper()
	return l.Sign(ledger.TypeDeployment, l.Spec(name, version, edit), "author", "security1", "security2")
}

// Release is a release of the node's software for some boards.
func (l *Log) Release(version string, boards ...string) ledger.NodeRelease {
	r := ledger.NodeRelease{Version: version, Images: []ledger.ReleaseImage{}, Mirrors: []string{}}
	for _, b := range boards {
		r.Images = append(r.Images, ledger.ReleaseImage{Board: b, Digest: Digest("uki " + b + " " + version), Size: 1 << 20})
	}
	return r
}

// NodeRelease is its entry with the signature that the policy wants.
func (l *Log) NodeRelease(version string, boards ...string) []byte {
	l.t.Helper()
	return l.Sign(ledger.TypeNodeRelease, l.Release(version, boards...), "release")
}

// Chunked is a release that binds a list of chunks for each image.
func Chunked(r ledger.NodeRelease, list func(ledger.ReleaseImage) string) ledger.ChunkedRelease {
	out := ledger.ChunkedRelease{Version: r.Version, Images: []ledger.ChunkedImage{}, Mirrors: r.Mirrors, Notes: r.Notes}
	for _, i := range r.Images {
		out.Images = append(out.Images, ledger.ChunkedImage{Board: i.Board, Digest: i.Digest, Size: i.Size, Chunks: list(i)})
	}
	return out
}

// ChunkedRelease is its entry with the signature that the policy wants.
func (l *Log) ChunkedRelease(version string, boards ...string) []byte {
	l.t.Helper()
	r := Chunked(l.Release(version, boards...), func(i ledger.ReleaseImage) string { return Digest("list of " + i.Digest) })
	return l.Sign(ledger.TypeChunkedRelease, r, "release")
}

// Rollout is a rollout to all nodes at once, which ends at the first failure.
func (l *Log) Rollout(release int64, version string) ledger.Rollout {
	return ledger.Rollout{Release: release, Version: version, Labels: map[string]string{}, Waves: []int64{100}, MaxFailed: 1}
}
