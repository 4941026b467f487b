// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"crypto/sha256"
	"encoding/hex"

	"github.com/zos-node/zos/spec/strict"
)

// FieldError is a refusal: the field's path and the reason, such as
// "machines[0].image.oci: is a tag, want sha256:<64 hex>".
type FieldError = strict.Error

// Decode reads the signed form of a deployment and checks all that can be
// known from its bytes alone. It is the only way in: the signer's tool, the
// ledger and the node call this function, so none takes what another refuses.
func Decode(b []byte) (*Deployment, error) {
	var d Deployment
	if err := strict.Decode(b, &d, MaxBytes); err != nil {
		return nil, err
	}
	if err := d.Validate(); err != nil {
		return nil, err
	}
	return &d, nil
}

// Encode writes the signed form: fields in the order of the types, map keys
// sorted, no white space. A deployment that Decode would refuse is refused.
//
// Bytes that were signed are kept and never made again by Encode.
func (d *Deployment) Encode() ([]byte, error) {
	b, err := strict.Encode(d)
	if err != nil {
		return nil, err
	}
	if _, err := Decode(b); err != nil {
		return nil, err
	}
	return b, nil
}

// Digest is the name of exact bytes: "sha256:<64 hex digits>".
func Digest(b []byte) string {
	sum := sha256.Sum256(b)
	return digestPrefix + hex.EncodeToString(sum[:])
}
