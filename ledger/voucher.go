// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"time"

	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// TypeExpiringVoucher is a voucher with an end; like TypeVoucher it is never an
// entry by itself.
const TypeExpiringVoucher = "application/vnd.zos.expiring-voucher.v1+json"

// ExpiringVoucher is a Voucher that is good until a moment of ledger time, not
// of anybody's clock. It is a document of its own: no field of one may be
// absent, and vouchers of before have none for it. Validators that are older
// than it refuse it; none of them takes it for one without an end.
type ExpiringVoucher struct {
	ID        string            `json:"id"`
	Uses      int64             `json:"uses"`
	Key       string            `json:"key"`
	Labels    map[string]string `json:"labels"`
	ExpiresMs int64             `json:"expiresMs"` // Unix milliseconds; a block of this time or later enrols nobody with it
}

// lastMoment is the end of the year 9999, the last that RFC 3339 can write.
const lastMoment = 253_402_300_799_999

// Voucher is what it says beside its end.
func (v *ExpiringVoucher) Voucher() *Voucher { return &Voucher{v.ID, v.Uses, v.Key, v.Labels} }

// Validate checks it by itself.
func (v *ExpiringVoucher) Validate() error {
	if v.ExpiresMs < 1 || v.ExpiresMs > lastMoment {
		return refuse("expiresMs", "is %d, want Unix milliseconds up to the year 9999; a voucher without an end is of type %s", v.ExpiresMs, TypeVoucher)
	}
	return v.Voucher().Validate()
}

// OpenVoucher reads a voucher of either type and checks it by itself, not its
// signatures. ExpiresMs is 0 for one that has no end.
func OpenVoucher(env *sign.Envelope) (*ExpiringVoucher, error) {
	switch env.PayloadType {
	case TypeVoucher:
		var v Voucher
		if err := strict.Decode(env.Payload, &v, MaxEntry); err != nil {
			return nil, refusal("payload", err)
		}
		if err := v.Validate(); err != nil {
			return nil, refusal("payload", err)
		}
		return &ExpiringVoucher{ID: v.ID, Uses: v.Uses, Key: v.Key, Labels: v.Labels}, nil
	case TypeExpiringVoucher:
		v := new(ExpiringVoucher)
		if err := strict.Decode(env.Payload, v, MaxEntry); err != nil {
			return nil, refusal("payload", err)
		}
		if err := v.Validate(); err != nil {
			return nil, refusal("payload", err)
		}
		return v, nil
	}
	return nil, refuse("payloadType", "is %q, want %s or %s", env.PayloadType, TypeVoucher, TypeExpiringVoucher)
}

// Moment writes a time of the ledger (Unix milliseconds) for people: RFC 3339, UTC.
func Moment(ms int64) string { return time.UnixMilli(ms).UTC().Format(time.RFC3339) }

// over says that a voucher has ended by a block's time.
func (v *ExpiringVoucher) over(timeMs int64) error {
	if v.ExpiresMs == 0 || timeMs < v.ExpiresMs {
		return nil
	}
	// Without the time that it is now: who asks again hears the same.
	return refuse("payload.voucher.payload.expiresMs", "is %s: the voucher has expired by the ledger's time", Moment(v.ExpiresMs))
}
