// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"

	"github.com/zos-node/zos/spec/strict"
)

const deploymentType = "application/vnd.zos.deployment.v1+json"

// newKey makes a signer.
func newKey(t testing.TB) Signer {
	t.Helper()
	s, _, err := GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealed is a signed envelope.
func sealed(t testing.TB, payload string, signers ...Signer) *Envelope {
	t.Helper()
	e := &Envelope{PayloadType: deploymentType, Payload: []byte(payload)}
	for _, s := range signers {
		if err := e.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// refused checks that err is a refusal of a field, for a reason.
func refused(t *testing.T, err error, field, reason string) {
	t.Helper()
	var e *strict.Error
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want a refusal of %q", err, field)
	}
	if e.Field != field || !strings.Contains(e.Reason, reason) {
		t.Errorf("refused %q because it %q, want %q because of %q", e.Field, e.Reason, field, reason)
	}
}

func TestPAE(t *testing.T) {
	// The example of the DSSE specification, protocol.md.
	got := PAE("http://example.com/HelloWorld", []byte("hello world"))
	if want := "DSSEv1 29 http://example.com/HelloWorld 11 hello world"; string(got) != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if got := PAE("", nil); string(got) != "DSSEv1 0  0 " {
		t.Errorf("got %q", got)
	}
}

func TestNamespace(t *testing.T) {
	if got, err := Namespace(deploymentType); err != nil || got != "deployment@zos" {
		t.Errorf("got %q, %v", got, err)
	}
	for _, bad := range []string{"", "deployment", "application/json", "application/vnd.zos..v1+json", "application/vnd.zos.a b.v1+json",
		"application/vnd.zos.A.v1+json", "application/vnd.zos.deployment.v2+json", deploymentType + " ", "application/vnd.zos.a@b.v1+json"} {
		_, err := Namespace(bad)
		refused(t, err, "payloadType", "want application/vnd.zos.")
	}
}

func TestRoundTrip(t *testing.T) {
	a, b := newKey(t), newKey(t)
	e := sealed(t, `{"a":1}`, a, b)
	raw, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeEnvelope(raw)
	if err != nil || !reflect.DeepEqual(e, back) {
		t.Fatalf("came back as %+v, %v", back, err)
	}
	keys, err := back.Keys()
	if want := []string{a.PublicKey(), b.PublicKey()}; err != nil || !reflect.DeepEqual(keys, want) {
		t.Errorf("signed by %v (%v), want %v", keys, err, want)
	}
	unsigned := &Envelope{PayloadType: deploymentType, Payload: []byte("x")}
	if keys, err := unsigned.Keys(); err != nil || len(keys) != 0 {
		t.Errorf("nobody signed, and Keys says %v, %v", keys, err)
	}
}

// TestForm: what the envelope itself must not be.
func TestForm(t *testing.T) {
	e := sealed(t, `{"a":1}`, newKey(t))
	raw, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	good := string(raw)
	sig := base64.StdEncoding.EncodeToString(e.Signatures[0].Sig)
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in %s", old, good)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ in, field, reason string }{
		"absent field":    {replace(`"payload":"eyJhIjoxfQ==",`, ""), "payload", "absent"},
		"unknown field":   {replace(`"payload":`, `"x":1,"payload":`), "x", "unknown"},
		"duplicate key":   {replace(`"payload":`, `"payload":"","payload":`), "payload", "twice"},
		"wrong case":      {replace(`"keyid"`, `"keyID"`), "signatures[0].keyID", `want "keyid"`},
		"trailing data":   {good + "{}", "", "trailing"},
		"UTF-8":           {replace(`"SHA256:`, "\"\xffSHA256:"), "signatures[0].keyid", "UTF-8"},
		"base64 payload":  {replace("eyJhIjoxfQ==", "eyJhIjoxfQ"), "payload", "base64"},
		"base64 bits":     {replace("eyJhIjoxfQ==", "eyJhIjoxfR=="), "payload", "base64"},
		"foreign type":    {replace("application/vnd.zos.", "application/vnd.foo."), "payloadType", "want"},
		"other type":      {replace("zos.deployment.", "zos.stop."), "signatures[0].sig", `namespace "deployment@zos", want "stop@zos"`},
		"foreign keyid":   {replace("SHA256:", "SHA256;"), "signatures[0].keyid", "was made by key SHA256:"},
		"no SSHSIG":       {replace(sig, "AAAA"), "signatures[0].sig", "no SSHSIG"},
		"cut signature":   {replace(sig, sig[:len(sig)-8]), "signatures[0].sig", "no SSHSIG"},
		"empty signature": {replace(sig, ""), "signatures[0].sig", "no SSHSIG"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := DecodeEnvelope([]byte(c.in))
			refused(t, err, c.field, c.reason)
		})
	}
	_, err = DecodeEnvelope(bytes.Repeat([]byte(" "), MaxEnvelope+1))
	refused(t, err, "", "at most")
	e.Payload = make([]byte, MaxEnvelope)
	_, err = e.Encode()
	refused(t, err, "", "at most")
}

// TestSignatures: what signatures must not be, each of them well formed.
func TestSignatures(t *testing.T) {
	a, b := newKey(t), newKey(t)

	altered := sealed(t, "payload", a)
	altered.Payload[0] ^= 1
	_, err := altered.Keys()
	refused(t, err, "signatures[0].sig", "wrong for this payload")

	// A signature that is right in itself, moved to a document of another type.
	moved := sealed(t, "payload", a)
	moved.PayloadType = "application/vnd.zos.stop.v1+json"
	_, err = moved.Keys()
	refused(t, err, "signatures[0].sig", `namespace "deployment@zos"`)

	// The right namespace, but over a PAE of another type.
	wrongPAE := &Envelope{PayloadType: deploymentType, Payload: []byte("payload")}
	raw, err := a.Sign("deployment@zos", PAE("application/vnd.zos.stop.v1+json", wrongPAE.Payload))
	if err != nil {
		t.Fatal(err)
	}
	wrongPAE.Signatures = []Signature{{a.KeyID(), raw}}
	_, err = wrongPAE.Keys()
	refused(t, err, "signatures[0].sig", "wrong for this payload")

	// One key under two ids: the second id is a lie.
	twoIDs := sealed(t, "payload", a)
	twoIDs.Signatures = append(twoIDs.Signatures, Signature{b.KeyID(), twoIDs.Signatures[0].Sig})
	_, err = twoIDs.Keys()
	refused(t, err, "signatures[1].keyid", "was made by key "+a.KeyID())

	// One key twice under its own id.
	twice := sealed(t, "payload", b, a)
	twice.Signatures = append(twice.Signatures, twice.Signatures[1])
	_, err = twice.Keys()
	refused(t, err, "signatures[2]", "second signature of the key of signatures[1]")

	// A good one does not save a bad one.
	mixed := sealed(t, "payload", a, b)
	mixed.Signatures[1].Sig = sealed(t, "other", b).Signatures[0].Sig
	_, err = mixed.Keys()
	refused(t, err, "signatures[1].sig", "wrong for this payload")

	var many []Signature
	for range MaxSignatures + 1 {
		many = append(many, Signature{})
	}
	_, err = (&Envelope{PayloadType: deploymentType, Signatures: many}).Keys()
	refused(t, err, "signatures", "at most 32")
}

// lying claims another key than it signs with, or signs something else.
type lying struct {
	Signer
	id   string
	sign func(namespace string, message []byte) ([]byte, error)
}

func (l lying) KeyID() string                              { return l.id }
func (l lying) Sign(ns string, msg []byte) ([]byte, error) { return l.sign(ns, msg) }

// TestAddTrustsNoSigner: a signature that does not hold is never kept.
func TestAddTrustsNoSigner(t *testing.T) {
	a, b := newKey(t), newKey(t)
	e := sealed(t, "payload", a)
	for name, s := range map[string]Signer{
		"signed already":  a,
		"other key":       lying{b, newKey(t).KeyID(), b.Sign},
		"hidden second":   lying{a, b.KeyID(), a.Sign},
		"other namespace": lying{b, b.KeyID(), func(_ string, m []byte) ([]byte, error) { return b.Sign("stop@zos", m) }},
		"other message":   lying{b, b.KeyID(), func(ns string, _ []byte) ([]byte, error) { return b.Sign(ns, []byte("x")) }},
		"failure":         lying{b, b.KeyID(), func(string, []byte) ([]byte, error) { return nil, errors.New("token gone") }},
		"no signature":    lying{b, b.KeyID(), func(string, []byte) ([]byte, error) { return nil, nil }},
	} {
		if err := e.Add(s); err == nil {
			t.Errorf("%s: was added", name)
		}
		if len(e.Signatures) != 1 {
			t.Fatalf("%s: the envelope has %d signatures", name, len(e.Signatures))
		}
	}
}

func FuzzDecodeEnvelope(f *testing.F) {
	for _, e := range []*Envelope{sealed(f, "{}", newKey(f)), {PayloadType: deploymentType, Payload: []byte{}}} {
		raw, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := DecodeEnvelope(b)
		if err != nil {
			return
		}
		out, err := e.Encode()
		if err != nil {
			t.Fatalf("decoded but not encoded: %v", err)
		}
		back, err := DecodeEnvelope(out)
		if err != nil || !reflect.DeepEqual(e, back) {
			t.Fatalf("%+v came back as %+v, %v", e, back, err)
		}
		if keys, err := e.Keys(); err == nil && len(keys) != len(e.Signatures) {
			t.Fatalf("%d keys of %d signatures", len(keys), len(e.Signatures))
		}
		if quick, ok := decodeCanonical(b); ok != bytes.Equal(out, b) || ok && !reflect.DeepEqual(e, quick) {
			t.Fatalf("the decoder of the canonical form: %+v, %v", quick, ok)
		}
		var std Envelope
		if err := json.Unmarshal(b, &std); err != nil || !reflect.DeepEqual(*e, std) {
			t.Fatalf("encoding/json reads %+v, %v", std, err)
		}
	})
}

func FuzzParseSignature(f *testing.F) {
	for _, s := range sealed(f, "{}", newKey(f)).Signatures {
		f.Add(s.Sig)
	}
	f.Add([]byte("SSHSIG\x00\x00\x00\x01"))
	cache := NewKeyCache()
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := parseSignature(b, nil)
		again, e := parseSignature(b, cache)
		if !reflect.DeepEqual(s.key, again.key) || !bytes.Equal(s.plain, again.plain) || s.namespace != again.namespace || (e == nil) != (err == nil) {
			t.Fatalf("%+v, with a cache %+v, %v", s, again, e)
		}
		if err != nil {
			return
		}
		// The library is the judge of what we take apart ourselves.
		lib, err := sshsig.ParseSignature(b)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(lib.Marshal(), b) {
			t.Fatal("two spellings of one signature")
		}
		k, err := parseKey(s.key.text)
		if err != nil || k.fingerprint() != s.key.id || k.material() != s.key.material || !bytes.Equal(k.Marshal(), lib.PublicKey.Marshal()) || s.namespace != lib.Namespace {
			t.Fatalf("key %q came back as %v, %v", s.key.text, k, err)
		}
		message := []byte("some message")
		ours, theirs := s.verify(message, signedBySSH(s.namespace, message)), sshsig.Verify(bytes.NewReader(message), lib, lib.PublicKey, sshsig.HashSHA512, lib.Namespace)
		if fmt.Sprint(ours) != fmt.Sprint(theirs) {
			t.Fatalf("%v, the library says %v", ours, theirs)
		}
		if ours == nil && len(b) < 100 {
			t.Fatal("verified")
		}
	})
}

func TestKeyCacheBeginsAnew(t *testing.T) {
	c := NewKeyCache()
	for i := range maxKeys + 10 {
		var point [32]byte
		point[0], point[1] = byte(i), byte(i>>8)
		if k := c.get(point); *k != *newKnownKey(point) || len(c.keys) > maxKeys {
			t.Fatalf("key %d: %+v, %d keys", i, k, len(c.keys))
		}
	}
}

// A key that is known already vouches for nothing.
func TestKeyCacheRefusesWhatIsWrong(t *testing.T) {
	c, key := NewKeyCache(), newKey(t)
	for i := range 3 {
		e := sealed(t, fmt.Sprintf("payload %d", i), key)
		raw, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		o, err := Open(raw, c)
		if err != nil {
			t.Fatal(err)
		}
		if keys, err := o.Keys(); err != nil || len(keys) != 1 || keys[0] != key.PublicKey() {
			t.Fatalf("%d: %q, %v", i, keys, err)
		}
		o.Envelope.Payload[0] ^= 1
		_, err = o.Keys()
		refused(t, err, "signatures[0].sig", "did not verify")
	}
}
