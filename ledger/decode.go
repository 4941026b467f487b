// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

// Entry is one decoded entry.
type Entry struct {
	Type     string
	Envelope *sign.Envelope
	// Payload is a *Root, *Enrol, *Capacity, *spec.Deployment, *Stop, *Revoke, *Claim,
	// *Renew, *Release, *Record, *Incident, *Close, *NodeRelease,
	// *ChunkedRelease, *Rollout, *Update or *Block.
	Payload any
	Raw     []byte

	opened *sign.Opened // what Decode knows of the signatures
	said   sum          // what id returns
}

// Refused says why something may not enter the ledger: which field, and what
// is wrong with it. Index is -1, or the index of the entry that is the same.
type Refused struct {
	Field  string
	Reason string
	Index  int64
}

func (r *Refused) Error() string {
	if r.Field == "" {
		return r.Reason
	}
	return r.Field + ": " + r.Reason
}

// refuse makes a refusal.
func refuse(field, format string, args ...any) error {
	return &Refused{Field: field, Reason: fmt.Sprintf(format, args...), Index: -1}
}

// refusal turns the errors of other packages into ours, below a field.
func refusal(field string, err error) error {
	var s *strict.Error
	var r *Refused
	below := Refused{Field: field, Reason: err.Error(), Index: -1}
	switch {
	case errors.As(err, &r):
		below = *r
	case errors.As(err, &s):
		below = Refused{Field: s.Field, Reason: s.Reason, Index: -1}
	default:
		return &below
	}
	switch {
	case field == "":
	case below.Field == "" || below.Field[0] == '[':
		below.Field = field + below.Field
	default:
		below.Field = field + "." + below.Field
	}
	return &below
}

// payload makes the empty payload of a type, nil for an unknown one.
func payload(entryType string) any {
	switch entryType {
	case TypeRoot:
		return new(Root)
	case TypeEnrol:
		return new(Enrol)
	case TypeCapacity:
		return new(Capacity)
	case TypeStop:
		return new(Stop)
	case TypeRevoke:
		return new(Revoke)
	case TypeClaim:
		return new(Claim)
	case TypeRenew:
		return new(Renew)
	case TypeRelease:
		return new(Release)
	case TypeRecord:
		return new(Record)
	case TypeIncident:
		return new(Incident)
	case TypeClose:
		return new(Close)
	case TypeNodeRelease:
		return new(NodeRelease)
	case TypeChunkedRelease:
		return new(ChunkedRelease)
	case TypeRollout:
		return new(Rollout)
	case TypeUpdate:
		return new(Update)
	case TypeBlock:
		return new(Block)
	}
	return nil
}

// Decode reads one entry, strictly: the envelope is in its canonical form,
// every field of the payload is there once and has a value that it can have.
// It does not look at the signatures' keys; Apply does.
func Decode(b []byte) (*Entry, error) { return decode(b, nil) }

func decode(b []byte, keys *sign.KeyCache) (*Entry, error) {
	o, err := sign.Open(b, keys)
	if err != nil {
		return nil, refusal("", err)
	}
	if canonical, err := o.Canonical(); err != nil {
		return nil, refusal("", err)
	} else if !canonical {
		return nil, refuse("", "the envelope is not in its canonical form (fields in order, no white space)")
	}
	if t := o.Envelope.PayloadType; t == TypeVoucher || t == TypeExpiringVoucher {
		return nil, refuse("payloadType", "a voucher is no entry by itself: a node shows it when it enrols")
	}
	e, err := decodeEnvelope(o.Envelope, b)
	if err != nil {
		return nil, err
	}
	e.opened = o
	return e, nil
}

func decodeEnvelope(env *sign.Envelope, raw []byte) (*Entry, error) {
	e := &Entry{Type: env.PayloadType, Envelope: env, Raw: raw, said: idOf(env)}
	if e.Type == TypeDeployment {
		d, err := spec.Decode(env.Payload)
		if err != nil {
			return nil, refusal("payload", err)
		}
		e.Payload = d
		return e, nil
	}
	e.Payload = payload(e.Type)
	if e.Payload == nil {
		return nil, refuse("payloadType", "is %q, which is no kind of entry", e.Type)
	}
	if err := strict.Decode(env.Payload, e.Payload, MaxEntry); err != nil {
		return nil, refusal("payload", err)
	}
	if err := check(e.Payload); err != nil {
		return nil, refusal("payload", err)
	}
	return e, nil
}

// NewEntry makes the envelope of a payload with one signature and checks that
// Decode accepts it.
func NewEntry(payloadType string, payload any, signers ...sign.Signer) ([]byte, error) {
	body, ok := payload.([]byte)
	if !ok {
		var err error
		if body, err = strict.Encode(payload); err != nil {
			return nil, fmt.Errorf("encode %s: %w", payloadType, err)
		}
	}
	env := sign.Envelope{PayloadType: payloadType, Payload: body}
	for _, s := range signers {
		if err := env.Add(s); err != nil {
			return nil, fmt.Errorf("sign %s: %w", payloadType, err)
		}
	}
	b, err := env.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", payloadType, err)
	}
	if _, err := decodeEnvelope(&env, b); err != nil {
		return nil, fmt.Errorf("check %s: %w", payloadType, err)
	}
	return b, nil
}

// HashEntry is the digest of an entry's bytes as Record.Previous holds it.
func HashEntry(raw []byte) string {
	sum := sha256.Sum256(raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// id identifies what was said and who said it, in whatever order and with
// whatever bytes of signature: the same people saying the same thing again add
// nothing. Other people saying it is another entry, which the rules judge: two
// nodes may well report the same, and what too few signed does not become
// theirs because enough others have signed it before.
//
// The key ids are those of the keys inside the signatures; decoding held them
// against each other.
func (e *Entry) id() sum { return e.said }

func idOf(env *sign.Envelope) sum {
	ids := make([]string, 0, len(env.Signatures))
	for _, s := range env.Signatures {
		ids = append(ids, s.KeyID)
	}
	slices.Sort(ids)
	var all []byte
	for _, part := range append(ids, string(sign.PAE(env.PayloadType, env.Payload))) {
		all = append(append(strconv.AppendInt(all, int64(len(part)), 10), ' '), part...)
	}
	return sha256.Sum256(all)
}

// says whether two entries have the same content, whoever signed them.
func (e *Entry) says(other *Entry) bool {
	return e.Type == other.Type && bytes.Equal(e.Envelope.Payload, other.Envelope.Payload)
}

// blockLeaf is the last leaf of a block. It carries no signature; the
// checkpoint covers it, and whoever folds the log computes it again.
func blockLeaf(b Block) []byte {
	body, err := strict.Encode(b)
	if err == nil {
		env := sign.Envelope{PayloadType: TypeBlock, Payload: body}
		if raw, err := env.Encode(); err == nil {
			return raw
		}
	}
	// Two numbers and a hex string always encode.
	panic(fmt.Sprintf("ledger: encode block leaf: %v", err))
}
