// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"slices"

	"github.com/zos-node/zos/sign"
)

// applyEnrol lets a node in: it signs with its own key and with that of a
// voucher that the policy's roles signed, that has a use left and has not ended.
func (s *State) applyEnrol(a at, p *Enrol, keys []string) (func(), error) {
	v, err := OpenVoucher(&p.Voucher)
	if err != nil {
		return nil, refusal("payload.voucher", err)
	}
	if len(keys) != 2 || !slices.Contains(keys, p.Key) || !slices.Contains(keys, v.Key) || p.Key == v.Key {
		return nil, refuse("signatures", "must be two, by the key that enrols and by the voucher's")
	}
	id, err := sign.Fingerprint(p.Key)
	if err != nil {
		return nil, refusal("payload.key", err)
	}
	if i, ok := s.nodeByID[id]; ok {
		return nil, refuse("payload.key", "is enrolled already, as entry %d", i)
	}
	if err := s.hadState(p.Acted); err != nil {
		return nil, err
	}
	signers, err := p.Voucher.Keys()
	if err != nil {
		return nil, refusal("payload.voucher", err)
	}
	if signers, err = s.stillValid(signers); err != nil {
		return nil, err
	}
	if err := s.Root().check("voucher", signers, nil); err != nil {
		return nil, refusal("payload.voucher.signatures", err)
	}
	if err := v.over(a.timeMs); err != nil {
		return nil, err
	}
	use := voucherUse{ID: v.ID, Digest: HashEntry(p.Voucher.Payload)}
	first, known := s.voucherByID[v.ID]
	if known {
		old := *s.vouchers.get(first)
		if old.Digest != use.Digest {
			return nil, refuse("payload.voucher.payload.id", "is %q, which another voucher has already", v.ID)
		}
		use = old
	} else {
		first = a.index
	}
	if use.Used >= v.Uses {
		return nil, refuse("payload.voucher.payload.uses", "is %d, and all are used up", v.Uses)
	}
	use.Used++
	node := Node{ID: id, Index: a.index, Name: p.Name, Key: p.Key, Labels: v.Labels, Image: p.Image, Voucher: v.ID, EnrolledMs: a.timeMs, HeardMs: a.timeMs}
	return func() {
		s.vouchers.put(first, use)
		s.voucherByID[v.ID] = first
		s.nodes.put(a.index, node)
		s.nodeByID[id] = a.index
	}, nil
}
