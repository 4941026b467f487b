// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

const submitTimeout = 15 * time.Second

// enrolled makes the node known to the ledger; it says whether it is.
func (f *Follower) enrolled(ctx context.Context, s *ledger.State, now time.Time) bool {
	if s.Node(f.cfg.World.Node) != nil {
		f.inside()
		return true
	}
	if now.Before(f.enrolAt) {
		if f.outside != nil {
			f.outside.Tick(now)
		}
		return false
	}
	f.enrolAt = now.Add(askAgain)
	err := f.submit(ctx, ledger.TypeEnrol, ledger.Enrol{Name: f.cfg.Name, Key: f.cfg.World.Signer.PublicKey(), Voucher: f.cfg.Voucher,
		Image: f.cfg.Image, Acted: s.Acted()}, f.cfg.VoucherSigner)
	if err != nil {
		f.notEnrolled(now, err)
	} else {
		f.inside()
		f.cfg.Log.Info("enrolled", "node", f.cfg.World.Node, "name", f.cfg.Name)
	}
	return false // the next Sync shows it
}

// notEnrolled puts a node that is left outside on its console, in the journal
// once per change and on the panel for as long as it lasts.
func (f *Follower) notEnrolled(now time.Time, err error) {
	do := enrolAdvice(err)
	f.problemOnce("the ledger does not enrol this node", err, "do", do)
	if f.outside == nil {
		f.outside = wait.Start(f.cfg.Log, now, "the ledger to enrol this node", "")
	}
	f.outside.Detail(err.Error() + "; " + do)
	f.outside.Tick(now)
}

// inside ends that.
func (f *Follower) inside() {
	f.problemOnce("the ledger does not enrol this node", nil)
	if f.outside != nil {
		f.outside.Done()
		f.outside = nil
	}
}

// enrolAdvice is what an operator can do about a node that is left outside.
func enrolAdvice(err error) string {
	var refused *ledger.Refused
	switch {
	case !errors.As(err, &refused):
		return "it is tried again by itself: see to it that the ledger can be reached and takes entries"
	case strings.HasPrefix(refused.Field, "payload.voucher"):
		return "make another voucher (zos ledger voucher) and give the node a seed with it (zos node seed)"
	}
	return "compare the node's seed with the ledger: zos node capacity lists who has enrolled"
}

// offer publishes what the node can run, and again when that has changed. It
// says whether an offer of this agent stands on the ledger.
func (f *Follower) offer(ctx context.Context, s *ledger.State, now time.Time) bool {
	c, err := f.cfg.Capacity()
	if err != nil {
		f.problemOnce("the node cannot offer capacity yet", err)
		return false
	}
	if have := s.Node(f.cfg.World.Node).Capacity; have != nil && same(*have, c) {
		return true
	}
	if now.Before(f.offerAt) {
		return false
	}
	f.offerAt = now.Add(askAgain)
	c.Acted = s.Acted()
	err = f.submit(ctx, ledger.TypeCapacity, c)
	f.problemOnce("the ledger does not take this node's capacity", err)
	if err == nil {
		f.cfg.Log.Info("capacity", "vcpus", c.VCPUs, "memoryMiB", c.MemoryMiB, "storageMiB", c.StorageMiB, "hypervisor", c.Hypervisor.Name,
			"version", c.Hypervisor.Version, "source", c.Hypervisor.Source, "addresses", c.Addresses)
	}
	return false // the next Sync shows it
}

// same compares two offers, whatever was acted on.
func same(a, b ledger.Capacity) bool {
	lists := slices.Equal(a.Addresses, b.Addresses) && slices.Equal(a.Boot.Lacks, b.Boot.Lacks)
	a.Addresses, b.Addresses, a.Acted, b.Acted = nil, nil, ledger.Acted{}, ledger.Acted{}
	a.Boot.Lacks, b.Boot.Lacks = nil, nil
	return lists && reflect.DeepEqual(a, b)
}

func (f *Follower) submit(ctx context.Context, typ string, payload any, more ...sign.Signer) error {
	raw, err := ledger.NewEntry(typ, payload, append([]sign.Signer{f.cfg.World.Signer}, more...)...)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, submitTimeout)
	defer cancel()
	_, err = f.cfg.Ledger.Submit(ctx, raw)
	return err
}
