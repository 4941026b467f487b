// SPDX-License-Identifier: Apache-2.0

package sign

// Envelope is a DSSE envelope: the exact payload bytes, their type, and
// signatures over PAE(payloadType, payload).
type Envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     []byte      `json:"payload"` // base64 in JSON
	Signatures  []Signature `json:"signatures"`
}

// Signature is one SSHSIG. KeyID is the OpenSSH fingerprint of the public key
// that Sig embeds; it is a hint, the embedded key is what counts.
type Signature struct {
	KeyID string `json:"keyid"`
	Sig   []byte `json:"sig"` // binary SSHSIG, base64 in JSON
}

// Policy says which roles there are. One key fills one role unless
// SharedKeys is true.
type Policy struct {
	Roles      map[string]Role `json:"roles"`
	SharedKeys bool            `json:"sharedKeys"`
}

// Role is filled when Threshold distinct keys of Keys have signed.
type Role struct {
	Keys      []string `json:"keys"` // authorized_keys form without comment: "ssh-ed25519 AAAA…"
	Threshold int64    `json:"threshold"`
}
