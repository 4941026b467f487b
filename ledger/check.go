// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/hex"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

const (
	maxText   = 8 << 10
	maxNumber = 1 << 40
)

// Checkpoints is the part of a root that says which checkpoints are to be believed.
func (r *Root) Checkpoints() tiles.Policy {
	p := tiles.Policy{Origin: r.Log.Origin, Quorum: int(r.Log.Quorum)}
	for _, v := range r.Log.Validators {
		p.Keys, p.Cosigners = append(p.Keys, v.Log), append(p.Cosigners, v.Cosigner)
	}
	return p
}

// Validate checks a root by itself.
func (r *Root) Validate() error {
	if r.Version < 1 {
		return refuse("version", "is %d, want 1 or more", r.Version)
	}
	if err := checkLog(r.Log); err != nil {
		return err
	}
	if err := r.Checkpoints().Validate(); err != nil {
		return refusal("log", err)
	}
	if err := r.Policy.Validate(); err != nil {
		return refusal("policy", err)
	}
	for _, what := range []string{"root", "deployment", "stop", "voucher", releaseRoles} {
		roles, there := r.Require[what]
		if what == releaseRoles && !there {
			continue // nobody may sign releases
		}
		if len(roles) == 0 {
			return refuse("require."+what, "names no role, so anybody could sign")
		}
		for i, role := range roles {
			if _, ok := r.Policy.Roles[role]; !ok {
				return refuse("require."+what, "names role %q, which policy.roles does not have", role)
			}
			if slices.Contains(roles[:i], role) {
				return refuse("require."+what, "names role %q twice", role)
			}
		}
	}
	_, more := r.Require[releaseRoles]
	if want := 4; len(r.Require) != want && !(more && len(r.Require) == want+1) {
		return refuse("require", "may have root, deployment, stop, voucher and release only")
	}
	l := r.Lease
	if l.WindowMs < 1 || l.LeaseMs < 1 || l.GraceMs < 0 || l.WindowMs > maxNumber || l.LeaseMs > maxNumber || l.GraceMs > maxNumber {
		return refuse("lease", "wants windowMs and leaseMs of 1 or more and graceMs of 0 or more")
	}
	return nil
}

// maxValidators bounds the number of validators: what one checkpoint holds.
const maxValidators = 32

func checkLog(l LogPolicy) error {
	n := int64(len(l.Validators))
	if n > maxValidators {
		return refuse("log.validators", "has %d entries, at most %d are allowed", n, maxValidators)
	}
	if l.Quorum > n || 3*l.Quorum <= 2*n {
		return refuse("log.quorum", "is %d, want %d to %d: more than two thirds of the validators", l.Quorum, QuorumOf(int(n)), n)
	}
	for i, v := range l.Validators {
		field := strict.Index("log.validators", i)
		if err := v.Validate(); err != nil {
			return refusal(field, err)
		}
		for _, w := range l.Validators[:i] {
			if v.Name == w.Name || v.Consensus == w.Consensus || v.Log == w.Log {
				return refuse(field, "has the name or a key of validator %s", w.Name)
			}
		}
	}
	return nil
}

// Validate checks a validator by itself; whether its note keys are keys is
// for tiles.Policy to say.
func (v *Validator) Validate() error {
	if !spec.IsDNSLabel(v.Name) {
		return refuse("name", "is %q, want a DNS label", v.Name)
	}
	if b, err := base64.StdEncoding.DecodeString(v.Consensus); err != nil || len(b) != ed25519.PublicKeySize || base64.StdEncoding.EncodeToString(b) != v.Consensus {
		return refuse("consensus", "is %q, want an Ed25519 public key in base64", v.Consensus)
	}
	if v.Mirror == "" {
		return nil
	}
	if u, err := url.Parse(v.Mirror); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || len(v.Mirror) > 256 {
		return refuse("mirror", "is %q, want http(s)://host[:port][/path] or nothing", v.Mirror)
	}
	return nil
}

// Validate checks a voucher by itself.
func (v *Voucher) Validate() error { return check(v) }

// check looks at the values of one payload without any state.
func check(p any) error {
	if known, err := checkSoftware(p); known {
		return err
	}
	switch p := p.(type) {
	case *Root:
		return p.Validate()
	case *Voucher:
		if !isWord(p.ID) {
			return refuse("id", "is %q, want small letters, digits and dashes", p.ID)
		}
		if p.Uses < 1 || p.Uses > 1_000_000 {
			return refuse("uses", "is %d, want 1 to 1000000", p.Uses)
		}
		if _, err := sign.Fingerprint(p.Key); err != nil {
			return refusal("key", err)
		}
		return checkLabels(p.Labels)
	case *Enrol:
		return checkEnrol(p)
	case *Capacity:
		return checkCapacity(p)
	case *Stop:
		return firstError(natural("deployment", p.Deployment), textual("reason", p.Reason))
	case *Revoke:
		if _, err := sign.Fingerprint(p.Key); err != nil {
			return refusal("key", err)
		}
		return textual("reason", p.Reason)
	case *Claim:
		return firstError(natural("deployment", p.Deployment), natural("attempt", p.Attempt), checkActed(p.Acted))
	case *Renew:
		return firstError(natural("claim", p.Claim), checkActed(p.Acted))
	case *Release:
		return firstError(natural("claim", p.Claim), textual("reason", p.Reason), checkActed(p.Acted))
	case *Record:
		return checkRecord(p)
	case *Incident:
		if !isWord(p.Kind) {
			return refuse("kind", "is %q, want a word such as \"guest-panic\"", p.Kind)
		}
		if p.Claim < -1 || p.Claim > maxNumber {
			return refuse("claim", "is %d, want a log index, or -1 for none", p.Claim)
		}
		if p.Machine != "" && !spec.IsDNSLabel(p.Machine) {
			return refuse("machine", "is %q, want the name of a machine or nothing", p.Machine)
		}
		return firstError(textual("detail", p.Detail), checkActed(p.Acted))
	case *Close:
		if !slices.Contains([]string{"stopped", "failed", "replaced", "released"}, p.Result) {
			return refuse("result", "is %q, want stopped, failed, replaced or released", p.Result)
		}
		return firstError(natural("claim", p.Claim), natural("records", p.Records), textual("reason", p.Reason), checkActed(p.Acted))
	case *Block:
		if b, err := hex.DecodeString(p.StateRoot); err != nil || len(b) != 32 || hex.EncodeToString(b) != p.StateRoot {
			return refuse("stateRoot", "is not 64 hex digits")
		}
		return firstError(natural("height", p.Height), natural("timeMs", p.TimeMs/1000))
	}
	return refuse("", "has no rule for a payload of type %T", p)
}

func checkEnrol(p *Enrol) error {
	if !spec.IsDNSLabel(p.Name) {
		return refuse("name", "is %q, want a DNS label", p.Name)
	}
	if _, err := sign.Fingerprint(p.Key); err != nil {
		return refusal("key", err)
	}
	if !strings.HasPrefix(p.Key, "ssh-ed25519 ") {
		return refuse("key", "is no ssh-ed25519 key")
	}
	if _, err := OpenVoucher(&p.Voucher); err != nil {
		return refusal("voucher", err)
	}
	return firstError(textual("image", p.Image), checkActed(p.Acted))
}

func checkCapacity(p *Capacity) error {
	if p.Arch != "amd64" && p.Arch != "arm64" {
		return refuse("arch", "is %q, want amd64 or arm64", p.Arch)
	}
	h := p.Hypervisor
	if h.Name != "cloud-hypervisor" && h.Name != "qemu" {
		return refuse("hypervisor.name", "is %q, want cloud-hypervisor or qemu", h.Name)
	}
	if !spec.IsDigest(h.Digest) {
		return refuse("hypervisor.digest", "is %q, want sha256:<64 hex digits>", h.Digest)
	}
	if !slices.Contains([]string{"release", "local", "debian"}, h.Source) {
		return refuse("hypervisor.source", "is %q, want release, local or debian", h.Source)
	}
	if len(p.Addresses) > 64 {
		return refuse("addresses", "has %d entries, at most 64 are allowed", len(p.Addresses))
	}
	for i, a := range p.Addresses {
		if ip, err := netip.ParseAddr(a); err != nil || ip.String() != a {
			return refuse(strict.Index("addresses", i), "is %q, want an IP address", a)
		}
	}
	if err := checkBoot(p.Boot); err != nil {
		return err
	}
	return firstError(natural("vcpus", p.VCPUs), natural("memoryMiB", p.MemoryMiB), natural("storageMiB", p.StorageMiB),
		textual("hypervisor.version", h.Version), checkActed(p.Acted))
}

// maxLacks bounds what a node says that it cannot promise.
const maxLacks = 16

func checkBoot(b Boot) error {
	if !slices.Contains([]string{"on", "off", "setup mode", "none"}, b.SecureBoot) {
		return refuse("boot.secureBoot", "is %q, want on, off, setup mode or none", b.SecureBoot)
	}
	if b.PCR11 != "" && !spec.IsDigest("sha256:"+b.PCR11) {
		return refuse("boot.pcr11", "is %q, want 64 hex digits, or nothing", b.PCR11)
	}
	if !slices.Contains(BootKeys, b.Key) {
		return refuse("boot.key", "is %q, want one of %q", b.Key, BootKeys)
	}
	if len(b.Lacks) > maxLacks {
		return refuse("boot.lacks", "has %d entries, at most %d are allowed", len(b.Lacks), maxLacks)
	}
	for i, l := range b.Lacks {
		if err := textual(strict.Index("boot.lacks", i), l); err != nil {
			return err
		}
	}
	return nil
}

func checkRecord(p *Record) error {
	if !isWord(p.Phase) {
		return refuse("phase", "is %q, want a word such as \"verify-signatures\"", p.Phase)
	}
	if !slices.Contains([]string{"ok", "failed", "undone"}, p.Result) {
		return refuse("result", "is %q, want ok, failed or undone", p.Result)
	}
	if (p.Seq == 0) != (p.Previous == "") || p.Previous != "" && !spec.IsDigest(p.Previous) {
		return refuse("previous", "is %q, want \"\" for record 0 and else sha256:<64 hex digits>", p.Previous)
	}
	if p.Result == "ok" && p.Error != "" {
		return refuse("error", "is %q in a record whose result is ok", p.Error)
	}
	if len(p.Digests) > 512 {
		return refuse("digests", "has %d entries, at most 512 are allowed", len(p.Digests))
	}
	for k, v := range p.Digests {
		if k == "" || len(k) > 200 || len(v) > 1024 {
			return refuse("digests", "has a name or value that is empty or too long: %.40q", k)
		}
	}
	return firstError(natural("claim", p.Claim), natural("seq", p.Seq), natural("startedMs", p.StartedMs/1000), natural("durationMs", p.DurationMs),
		natural("bytes", p.Bytes/1024), textual("detail", p.Detail), textual("error", p.Error), checkActed(p.Acted))
}

func checkActed(a Acted) error {
	if b, err := hex.DecodeString(a.Root); err != nil || len(b) != 32 || hex.EncodeToString(b) != a.Root {
		return refuse("acted.root", "is %q, want 64 hex digits", a.Root)
	}
	return natural("acted.size", a.Size)
}

func checkLabels(labels map[string]string) error {
	if len(labels) > 64 {
		return refuse("labels", "has %d entries, at most 64 are allowed", len(labels))
	}
	for k, v := range labels {
		if !isLabelKey(k) || len(v) > 256 {
			return refuse("labels", "has %.80q: names are letters, digits, dots, dashes and slashes, values at most 256 bytes", k)
		}
	}
	return nil
}

func natural(field string, n int64) error {
	if n < 0 || n > maxNumber {
		return refuse(field, "is %d, want 0 or more", n)
	}
	return nil
}

func textual(field, s string) error {
	if len(s) > maxText || !utf8.ValidString(s) {
		return refuse(field, "has %d bytes, at most %d bytes of UTF-8 are allowed", len(s), maxText)
	}
	return nil
}

func firstError(all ...error) error {
	for _, err := range all {
		if err != nil {
			return err
		}
	}
	return nil
}
