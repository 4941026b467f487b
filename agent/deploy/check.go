// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// entry finds the deployment in the newest verified state.
func (l *Life) entry() (*ledger.State, *ledger.Deployment, error) {
	s := l.world.Ledger.State()
	d := s.Deployment(l.st.Deployment)
	if d == nil {
		return nil, nil, fmt.Errorf("entry %d is no deployment", l.st.Deployment)
	}
	return s, d, nil
}

func (l *Life) detect(_ context.Context, out *phase.Out) error {
	s, d, err := l.entry()
	if err != nil {
		return err
	}
	out.Digest("spec", d.Digest)
	out.Detail = fmt.Sprintf("entry %d: %s version %d, seen at size %d", d.ID, d.Name, d.Version, s.Size())
	return nil
}

func (l *Life) match(_ context.Context, out *phase.Out) error {
	s, d, err := l.entry()
	if err != nil {
		return err
	}
	if g := s.Claim(l.claimed()); g != nil {
		out.Detail = "claimed before"
		return l.reserve(d.Spec)
	}
	from, reasons := s.MayClaim(d, l.world.Node)
	if len(reasons) > 0 {
		return errors.New(strings.Join(reasons, "; "))
	}
	out.Detail = fmt.Sprintf("fits, may be claimed from ledger time %d on", from)
	return l.reserve(d.Spec)
}

// reserve takes the networks and ports, or says why they cannot stand beside
// those that are here. The ledger does not know them, so a node must look
// before it claims, and hold what it found free against its own other lives.
func (l *Life) reserve(d *spec.Deployment) error {
	p, err := plan.Networks(d, l.facts())
	if err != nil {
		return err
	}
	return onlyHere(l.world.Network.Reserve(l.st.Deployment, p))
}

func (l *Life) facts() plan.Facts {
	return plan.Facts{Deployment: l.st.Deployment, Digest: l.st.Digest, Slot: l.st.Slot, RunDir: l.world.RunDir, Content: l.world.Content}
}

// claim asks the ledger for the deployment, and believes that it was granted
// only when the node's own verified state says so.
func (l *Life) claim(ctx context.Context, out *phase.Out) error {
	s, d, err := l.entry()
	if err != nil {
		return err
	}
	lease := time.Duration(s.Root().Lease.LeaseMs) * time.Millisecond
	if c := l.claimed(); c >= 0 { // by an agent that died right behind it
		g := s.Claim(c)
		if g == nil || g.Node != l.world.Node || g.State != ledger.GrantActive {
			return fmt.Errorf("claim %d is not active", c)
		}
		out.Detail = fmt.Sprintf("claim %d, granted before", c)
		// The ledger's time may have stood still for long, and the node's clock
		// may be behind: the lease ends at the earlier of what both say.
		until := l.world.Clock.Now().Add(time.Duration(g.ExpiresMs-s.TimeMs()) * time.Millisecond)
		if t := time.UnixMilli(g.ExpiresMs); t.Before(until) {
			until = t
		}
		if err := l.update(func(st *State) { st.Lease, st.LeaseUntil = lease, until }); err != nil {
			return err
		}
		go l.watch(ctx, l.End)
		return nil
	}
	sent := l.world.Clock.Now()
	raw, err := ledger.NewEntry(ledger.TypeClaim, ledger.Claim{Deployment: d.ID, Attempt: d.Attempt, Acted: l.world.Ledger.Acted()}, l.world.Signer)
	if err != nil {
		return err
	}
	l.ahead(ctx, d.Spec)
	sctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	receipt, err := l.world.Ledger.Submit(sctx, raw)
	if err != nil {
		return fmt.Errorf("submit claim: %w", err)
	}
	if err := l.granted(ctx, receipt.Index); err != nil {
		return err
	}
	out.Digest("claim", ledger.HashEntry(raw))
	out.Detail = fmt.Sprintf("claim %d, attempt %d, lease %s", receipt.Index, d.Attempt, lease)
	if err := l.update(func(st *State) { st.Claim, st.Lease, st.LeaseUntil = receipt.Index, lease, sent.Add(lease) }); err != nil {
		return err
	}
	go l.watch(ctx, l.End)
	return nil
}

// ahead has kernels and initramfs that are here hashed while the ledger decides;
// fetchContent ends it.
func (l *Life) ahead(ctx context.Context, d *spec.Deployment) {
	var blobs []string
	for _, m := range d.Machines {
		for _, b := range []string{m.Kernel, m.Initramfs} {
			if !slices.Contains(blobs, b) {
				blobs = append(blobs, b)
			}
		}
	}
	ctx, l.aheadDone = context.WithCancel(ctx)
	go l.world.Content.Ahead(ctx, blobs...)
}

func (l *Life) granted(ctx context.Context, index int64) error {
	timeout := l.world.Clock.After(grantTimeout)
	line := wait.Start(l.log, l.world.Clock.Now(), "the claim to be on the ledger", fmt.Sprintf("entry %d", index))
	for {
		changed := l.world.Ledger.Changed()
		if g := l.world.Ledger.State().Claim(index); g != nil {
			if g.Node != l.world.Node || g.Deployment != l.st.Deployment {
				return fmt.Errorf("entry %d is another claim than the ledger's receipt said", index)
			}
			if g.State != ledger.GrantActive {
				return fmt.Errorf("claim %d is %s already", index, g.State)
			}
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-timeout:
			return fmt.Errorf("the ledger gave a receipt for entry %d, but after %s it is not on the ledger", index, grantTimeout)
		case now := <-l.world.Clock.After(tick):
			line.Tick(now)
		case <-changed:
		}
	}
}

// retrieve takes the exact bytes that were signed. The ledger client has proven
// that they are the entry.
func (l *Life) retrieve(_ context.Context, out *phase.Out) error {
	_, d, err := l.entry()
	if err != nil {
		return err
	}
	env, err := sign.DecodeEnvelope(d.Envelope)
	if err != nil {
		return err
	}
	if env.PayloadType != spec.PayloadType {
		return fmt.Errorf("payload type %q, want %q", env.PayloadType, spec.PayloadType)
	}
	if got := spec.Digest(env.Payload); got != l.st.Digest {
		return fmt.Errorf("the spec's bytes have digest %s, want %s", got, l.st.Digest)
	}
	if l.spec, err = spec.Decode(env.Payload); err != nil {
		return fmt.Errorf("spec: %w", err)
	}
	out.Bytes = int64(len(d.Envelope))
	out.Digest("spec", l.st.Digest)
	out.Digest("envelope", ledger.HashEntry(d.Envelope))
	return l.pin()
}

// verifySignatures checks every signature and the policy again, here, under
// the root of trust that was in force when the deployment was registered.
func (l *Life) verifySignatures(_ context.Context, out *phase.Out) error {
	s, d, err := l.entry()
	if err != nil {
		return err
	}
	env, err := sign.DecodeEnvelope(d.Envelope)
	if err != nil {
		return err
	}
	keys, err := env.Keys()
	if err != nil {
		return err
	}
	root := s.RootAt(d.RootVersion)
	if root == nil {
		return fmt.Errorf("root of trust version %d is not on the ledger", d.RootVersion)
	}
	need := slices.Concat(root.Require["deployment"], l.spec.Security.RequiredRoles)
	filled, err := root.Policy.Check(keys, need)
	if err != nil {
		return err
	}
	var lines []string
	for role, by := range filled {
		for _, k := range by {
			id, err := sign.Fingerprint(k)
			if err != nil {
				return err
			}
			lines = append(lines, role+" "+id)
		}
	}
	slices.Sort(lines)
	out.Digest("root", ledger.HashEntry(s.RootEnvelope(d.RootVersion)))
	out.Detail = fmt.Sprintf("root version %d; %s", d.RootVersion, strings.Join(lines, "; "))
	return nil
}

func (l *Life) verifyResources(_ context.Context, out *phase.Out) error {
	s, _, err := l.entry()
	if err != nil {
		return err
	}
	node := s.Node(l.world.Node)
	if node == nil || node.Capacity == nil {
		return errors.New("the node has no capacity on the ledger")
	}
	// The ledger has reserved for this claim already: against is what remains
	// when nothing else would run but what does.
	free := ledger.Free{VCPUs: 1 << 20, MemoryMiB: 1 << 30, StorageMiB: 1 << 30, Ports: map[int64]string{}}
	if reasons := ledger.Match(l.spec, node.Capacity, node.Labels, free); len(reasons) > 0 {
		return errors.New(strings.Join(reasons, "; "))
	}
	var memory int64
	for _, m := range l.spec.Machines {
		memory += m.MemoryMiB
		if m.Hypervisor != "any" && m.Hypervisor != l.world.Driver.Name() {
			return fmt.Errorf("machine %s needs hypervisor %s, this node runs %s", m.Name, m.Hypervisor, l.world.Driver.Name())
		}
	}
	have, err := l.world.Resources()
	if err != nil {
		return err
	}
	if memory > have {
		return onlyHere(fmt.Errorf("machines need %d MiB memory, %d MiB are free on the node now", memory, have))
	}
	var storage int64
	for _, v := range l.spec.Volumes {
		storage += v.SizeMiB
	}
	if err := l.world.Content.Room(storage); err != nil {
		return onlyHere(fmt.Errorf("volumes: %w", err))
	}
	h := l.world.Hypervisor
	out.Digest("hypervisor", h.Digest)
	out.Detail = fmt.Sprintf("memory %d of %d MiB free, volumes %d MiB, %s %s (%s)", memory, have, storage, h.Name, h.Version, h.Source)
	return nil
}

func (l *Life) verifyNetwork(_ context.Context, out *phase.Out) error {
	out.Detail = fmt.Sprintf("%d networks, %d gateways, none in conflict", len(l.spec.Networks), len(l.spec.Gateways))
	return l.reserve(l.spec)
}
