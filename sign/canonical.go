// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/base64"
)

// decodeCanonical reads an envelope in the one form that Encode writes, which
// is the only one on a ledger. What is in any other form it leaves to the
// strict decoder, which also says what is wrong.
func decodeCanonical(b []byte) (*Envelope, bool) {
	if len(b) > MaxEnvelope {
		return nil, false
	}
	r := canonical{rest: b, ok: true}
	r.word(`{"payloadType":"`)
	e := Envelope{PayloadType: string(r.text())}
	r.word(`,"payload":"`)
	e.Payload = r.base64()
	r.word(`,"signatures":[`)
	e.Signatures = []Signature{}
	for r.ok && !bytes.HasPrefix(r.rest, []byte("]")) {
		if len(e.Signatures) > 0 {
			r.word(",")
		}
		r.word(`{"keyid":"`)
		s := Signature{KeyID: string(r.text())}
		r.word(`,"sig":"`)
		s.Sig = r.base64()
		r.word("}")
		e.Signatures = append(e.Signatures, s)
	}
	r.word("]}")
	return &e, r.ok && len(r.rest) == 0
}

// canonical takes text apart that has no choice of form. After something
// unexpected it gives nothing more.
type canonical struct {
	rest []byte
	ok   bool
}

func (r *canonical) word(w string) {
	if r.ok = r.ok && len(r.rest) >= len(w) && string(r.rest[:len(w)]) == w; r.ok {
		r.rest = r.rest[len(w):]
	}
}

// text is what stands up to the next quote, if JSON has one spelling for it.
func (r *canonical) text() []byte {
	n := bytes.IndexByte(r.rest, '"')
	if r.ok = r.ok && n >= 0; !r.ok {
		return nil
	}
	s := r.rest[:n]
	for _, c := range s {
		if c < ' ' || c > '~' || c == '\\' {
			r.ok = false
			return nil
		}
	}
	r.rest = r.rest[n+1:]
	return s
}

func (r *canonical) base64() []byte {
	s := r.text()
	b := make([]byte, base64.StdEncoding.DecodedLen(len(s)))
	n, err := base64.StdEncoding.Strict().Decode(b, s)
	// The decoder passes over line breaks, which text refuses.
	r.ok = r.ok && err == nil
	return b[:n]
}
