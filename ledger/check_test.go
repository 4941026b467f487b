// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/sign"
)

// TestEveryValueIsChecked has one line for each value that an entry must not
// have, whatever the state of the ledger. Each payload is good without it.
func TestEveryValueIsChecked(t *testing.T) {
	l := ledgertest.New(t)
	acted := ledger.Acted{Size: 2, Root: strings.Repeat("ab", 32)}
	long := strings.Repeat("x", 8<<10+1)
	const huge = 1<<40 + 1
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("k", i)] = "v"
		}
		return m
	}
	key := l.Keys["author"].PublicKey()
	ecdsa := "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBBGsX0fLhLEJH+Lzm5WOkQPJ3A32BLeszoPShOUXYmMKWT+NC4v4af5uO5+tKfA+eFivOM1drMV7Oy7ZAaDe/UfU="

	root := func() *ledger.Root {
		r := l.Root
		r.Require = map[string][]string{"root": {"root"}, "deployment": {"author"}, "stop": {"author"}, "voucher": {"operator"}}
		return &r
	}
	voucher := func() *ledger.Voucher { return &ledger.Voucher{ID: "v", Uses: 1, Key: key} }
	expiring := func() *ledger.ExpiringVoucher {
		return &ledger.ExpiringVoucher{ID: "v", Uses: 1, Key: key, ExpiresMs: 1}
	}
	enrol := func() *ledger.Enrol {
		return &ledger.Enrol{Name: "n", Key: key, Voucher: l.Voucher("v", 1, nil), Image: "x", Acted: acted}
	}
	capacity := func() *ledger.Capacity {
		return &ledger.Capacity{Arch: "amd64", VCPUs: 1, MemoryMiB: 1, StorageMiB: 1, Acted: acted,
			Hypervisor: ledger.Hypervisor{Name: "qemu", Version: "1", Digest: ledgertest.Digest("q"), Source: "debian"},
			Boot:       ledger.Boot{SecureBoot: "on", PCR11: strings.Repeat("ab", 32), Key: "sealed", Lacks: []string{}}}
	}
	stop := func() *ledger.Stop { return &ledger.Stop{Deployment: 1, Name: "x"} }
	claim := func() *ledger.Claim { return &ledger.Claim{Deployment: 1, Acted: acted} }
	renew := func() *ledger.Renew { return &ledger.Renew{Claim: 1, Acted: acted} }
	release := func() *ledger.Release { return &ledger.Release{Claim: 1, Acted: acted} }
	record := func() *ledger.Record { return &ledger.Record{Claim: 1, Phase: "plan", Result: "ok", Acted: acted} }
	incident := func() *ledger.Incident { return &ledger.Incident{Claim: -1, Kind: "guest-panic", Acted: acted} }
	closing := func() *ledger.Close { return &ledger.Close{Claim: 1, Result: "stopped", Acted: acted} }
	block := func() *ledger.Block { return &ledger.Block{Height: 1, TimeMs: 1, StateRoot: strings.Repeat("ab", 32)} }

	for _, c := range []struct {
		payload any // good but for one value
		field   string
	}{
		{change(root, func(p *ledger.Root) { p.Version = 0 }), "version"},
		{change(root, func(p *ledger.Root) { p.Require["stop"] = []string{"author", "author"} }), "require.stop"},
		{change(root, func(p *ledger.Root) { p.Lease.WindowMs = 0 }), "lease"},
		{change(root, func(p *ledger.Root) { p.Lease.WindowMs = huge }), "lease"},
		{change(root, func(p *ledger.Root) { p.Lease.LeaseMs = 0 }), "lease"},
		{change(root, func(p *ledger.Root) { p.Lease.LeaseMs = huge }), "lease"},
		{change(root, func(p *ledger.Root) { p.Lease.GraceMs = -1 }), "lease"},
		{change(root, func(p *ledger.Root) { p.Lease.GraceMs = huge }), "lease"},
		{change(root, func(p *ledger.Root) {
			p.Policy.Roles = map[string]sign.Role{"author": {Keys: []string{key}, Threshold: 2}}
		}), "policy.roles.author.threshold"},

		{change(voucher, func(p *ledger.Voucher) { p.ID = "V" }), "id"},
		{change(voucher, func(p *ledger.Voucher) { p.Uses = 0 }), "uses"},
		{change(voucher, func(p *ledger.Voucher) { p.Uses = 1_000_001 }), "uses"},
		{change(voucher, func(p *ledger.Voucher) { p.Key = "ssh-ed25519" }), "key"},
		{change(voucher, func(p *ledger.Voucher) { p.Labels = many(65) }), "labels"},
		{change(voucher, func(p *ledger.Voucher) { p.Labels = map[string]string{"-a": ""} }), "labels"},
		{change(voucher, func(p *ledger.Voucher) { p.Labels = map[string]string{"a": strings.Repeat("x", 257)} }), "labels"},

		{change(expiring, func(p *ledger.ExpiringVoucher) { p.ExpiresMs = 0 }), "expiresMs"},
		{change(expiring, func(p *ledger.ExpiringVoucher) { p.ExpiresMs = 253_402_300_800_000 }), "expiresMs"},
		{change(expiring, func(p *ledger.ExpiringVoucher) { p.Uses = 0 }), "uses"},

		{change(enrol, func(p *ledger.Enrol) { p.Voucher.PayloadType = ledger.TypeStop }), "voucher.payloadType"},
		{change(enrol, func(p *ledger.Enrol) { p.Voucher.PayloadType = ledger.TypeExpiringVoucher }), "voucher.payload.expiresMs"},
		{change(enrol, func(p *ledger.Enrol) { p.Voucher = l.ExpiringVoucher("v", 1, -1) }), "voucher.payload.expiresMs"},
		{change(enrol, func(p *ledger.Enrol) { p.Name = "N" }), "name"},
		{change(enrol, func(p *ledger.Enrol) { p.Key = key + " me" }), "key"},
		{change(enrol, func(p *ledger.Enrol) { p.Key = ecdsa }), "key"},
		{change(enrol, func(p *ledger.Enrol) { p.Voucher.PayloadType = ledger.TypeStop }), "voucher.payloadType"},
		{change(enrol, func(p *ledger.Enrol) { p.Voucher.Payload = []byte("{}") }), "voucher.payload.id"},
		{change(enrol, func(p *ledger.Enrol) { p.Voucher = l.Voucher("v", 0, nil) }), "voucher.payload.uses"},
		{change(enrol, func(p *ledger.Enrol) { p.Image = long }), "image"},
		{change(enrol, func(p *ledger.Enrol) { p.Acted.Size = -1 }), "acted.size"},

		{change(capacity, func(p *ledger.Capacity) { p.Boot.SecureBoot = "maybe" }), "boot.secureBoot"},
		{change(capacity, func(p *ledger.Capacity) { p.Boot.PCR11 = "AB" }), "boot.pcr11"},
		{change(capacity, func(p *ledger.Capacity) { p.Boot.Key = "" }), "boot.key"},
		{change(capacity, func(p *ledger.Capacity) { p.Boot.Lacks = make([]string, 17) }), "boot.lacks"},
		{change(capacity, func(p *ledger.Capacity) { p.Boot.Lacks = []string{strings.Repeat("x", 9_000)} }), "boot.lacks[0]"},
		{change(capacity, func(p *ledger.Capacity) { p.Arch = "x86_64" }), "arch"},
		{change(capacity, func(p *ledger.Capacity) { p.Hypervisor.Name = "kvm" }), "hypervisor.name"},
		{change(capacity, func(p *ledger.Capacity) { p.Hypervisor.Digest = "sha256:ab" }), "hypervisor.digest"},
		{change(capacity, func(p *ledger.Capacity) { p.Hypervisor.Source = "web" }), "hypervisor.source"},
		{change(capacity, func(p *ledger.Capacity) { p.Hypervisor.Version = long }), "hypervisor.version"},
		{change(capacity, func(p *ledger.Capacity) { p.Addresses = strings.Fields(strings.Repeat("10.0.0.1 ", 65)) }), "addresses"},
		{change(capacity, func(p *ledger.Capacity) { p.Addresses = []string{"10.0.0.1", "node"} }), "addresses[1]"},
		{change(capacity, func(p *ledger.Capacity) { p.Addresses = []string{"FD00::1"} }), "addresses[0]"},
		{change(capacity, func(p *ledger.Capacity) { p.VCPUs = -1 }), "vcpus"},
		{change(capacity, func(p *ledger.Capacity) { p.MemoryMiB = huge }), "memoryMiB"},
		{change(capacity, func(p *ledger.Capacity) { p.StorageMiB = -1 }), "storageMiB"},
		{change(capacity, func(p *ledger.Capacity) { p.Acted.Root = "" }), "acted.root"},

		{change(stop, func(p *ledger.Stop) { p.Deployment = huge }), "deployment"},
		{change(stop, func(p *ledger.Stop) { p.Reason = long }), "reason"},
		{change(claim, func(p *ledger.Claim) { p.Deployment = -1 }), "deployment"},
		{change(claim, func(p *ledger.Claim) { p.Attempt = -1 }), "attempt"},
		{change(claim, func(p *ledger.Claim) { p.Acted.Root = strings.ToUpper(acted.Root) }), "acted.root"},
		{change(renew, func(p *ledger.Renew) { p.Claim = -1 }), "claim"},
		{change(renew, func(p *ledger.Renew) { p.Acted.Root = "zz" + acted.Root[2:] }), "acted.root"},
		{change(release, func(p *ledger.Release) { p.Claim = -1 }), "claim"},
		{change(release, func(p *ledger.Release) { p.Reason = long }), "reason"},
		{change(release, func(p *ledger.Release) { p.Acted.Root = acted.Root[2:] }), "acted.root"},

		{change(record, func(p *ledger.Record) { p.Phase = "Plan" }), "phase"},
		{change(record, func(p *ledger.Record) { p.Result = "good" }), "result"},
		{change(record, func(p *ledger.Record) { p.Seq = 1 }), "previous"},
		{change(record, func(p *ledger.Record) { p.Previous = ledgertest.Digest("x") }), "previous"},
		{change(record, func(p *ledger.Record) { p.Seq, p.Previous = 1, "sha256:ab" }), "previous"},
		{change(record, func(p *ledger.Record) { p.Error = "x" }), "error"},
		{change(record, func(p *ledger.Record) { p.Digests = many(513) }), "digests"},
		{change(record, func(p *ledger.Record) { p.Digests = map[string]string{"": "v"} }), "digests"},
		{change(record, func(p *ledger.Record) { p.Digests = map[string]string{strings.Repeat("k", 201): "v"} }), "digests"},
		{change(record, func(p *ledger.Record) { p.Digests = map[string]string{"k": strings.Repeat("v", 1025)} }), "digests"},
		{change(record, func(p *ledger.Record) { p.Claim = -1 }), "claim"},
		{change(record, func(p *ledger.Record) { p.Seq, p.Previous = -1, ledgertest.Digest("x") }), "seq"},
		{change(record, func(p *ledger.Record) { p.StartedMs = -1000 }), "startedMs"},
		{change(record, func(p *ledger.Record) { p.DurationMs = -1 }), "durationMs"},
		{change(record, func(p *ledger.Record) { p.Bytes = -1024 }), "bytes"},
		{change(record, func(p *ledger.Record) { p.Detail = long }), "detail"},
		{change(record, func(p *ledger.Record) { p.Result, p.Error = "failed", long }), "error"},
		{change(record, func(p *ledger.Record) { p.Acted.Size = huge }), "acted.size"},

		{change(incident, func(p *ledger.Incident) { p.Kind = "Guest panic" }), "kind"},
		{change(incident, func(p *ledger.Incident) { p.Claim = -2 }), "claim"},
		{change(incident, func(p *ledger.Incident) { p.Claim = huge }), "claim"},
		{change(incident, func(p *ledger.Incident) { p.Machine = "Web" }), "machine"},
		{change(incident, func(p *ledger.Incident) { p.Detail = long }), "detail"},
		{change(incident, func(p *ledger.Incident) { p.Acted.Root = "" }), "acted.root"},

		{change(closing, func(p *ledger.Close) { p.Result = "bored" }), "result"},
		{change(closing, func(p *ledger.Close) { p.Claim = -1 }), "claim"},
		{change(closing, func(p *ledger.Close) { p.Records = -1 }), "records"},
		{change(closing, func(p *ledger.Close) { p.Reason = long }), "reason"},
		{change(closing, func(p *ledger.Close) { p.Acted.Root = "" }), "acted.root"},

		{change(block, func(p *ledger.Block) { p.StateRoot = strings.Repeat("ab", 31) }), "stateRoot"},
		{change(block, func(p *ledger.Block) { p.StateRoot = strings.Repeat("AB", 32) }), "stateRoot"},
		{change(block, func(p *ledger.Block) { p.StateRoot = strings.Repeat("zz", 32) }), "stateRoot"},
		{change(block, func(p *ledger.Block) { p.Height = -1 }), "height"},
		{change(block, func(p *ledger.Block) { p.TimeMs = -1000 }), "timeMs"},
	} {
		err := checked(l, c.payload)
		// The field is said first: "payload.lease wants …".
		if err == nil || !strings.HasPrefix(err.Error(), c.field+": ") && !strings.HasPrefix(err.Error(), "payload."+c.field+": ") {
			t.Errorf("%T with a bad %s: %v", c.payload, c.field, err)
		}
	}
	for _, good := range []any{root(), voucher(), enrol(), capacity(), stop(), claim(), renew(), release(), record(), incident(), closing(), block()} {
		if err := checked(l, good); err != nil {
			t.Errorf("a good %T is refused: %v", good, err)
		}
	}
}

// change makes a payload that is good but for what edit does.
func change[T any](good func() *T, edit func(*T)) *T {
	p := good()
	edit(p)
	return p
}

// checked decodes a payload as an entry; a voucher is none by itself.
func checked(l *ledgertest.Log, payload any) error {
	kinds := map[string]string{
		"*ledger.Root": ledger.TypeRoot, "*ledger.Enrol": ledger.TypeEnrol, "*ledger.Capacity": ledger.TypeCapacity, "*ledger.Stop": ledger.TypeStop,
		"*ledger.Claim": ledger.TypeClaim, "*ledger.Renew": ledger.TypeRenew, "*ledger.Release": ledger.TypeRelease, "*ledger.Record": ledger.TypeRecord,
		"*ledger.Incident": ledger.TypeIncident, "*ledger.Close": ledger.TypeClose, "*ledger.Block": ledger.TypeBlock,
	}
	if v, ok := payload.(interface{ Validate() error }); ok {
		if _, root := payload.(*ledger.Root); !root {
			return v.Validate()
		}
	}
	var by []string
	if _, isBlock := payload.(*ledger.Block); !isBlock {
		by = []string{"author"}
	}
	_, err := ledger.Decode(l.Sign(kinds[fmt.Sprintf("%T", payload)], payload, by...))
	return err
}
