// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"
)

// powerOn starts swtpm on a state and measures what a stub would.
func powerOn(t *testing.T, state string, events [][]byte) transport.TPM {
	t.Helper()
	swtpm, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skipf("SKIP TPM: %v", err)
	}
	socket := filepath.Join(state, "server")
	if err := os.RemoveAll(socket); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(swtpm, "socket", "--tpm2", "--tpmstate", "dir="+state, "--server", "type=unixio,path="+socket,
		"--ctrl", "type=unixio,path="+filepath.Join(state, "ctrl"), "--flags", "not-need-init,startup-clear")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var tpm transport.TPMCloser
	for wait := time.Now().Add(time.Minute); tpm == nil; time.Sleep(20 * time.Millisecond) {
		if tpm, err = linuxudstpm.Open(socket); err != nil && time.Now().After(wait) {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		// swtpm ends with its only connection; what is left of it is ended.
		_ = tpm.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for _, e := range events {
		d := sha256.Sum256(e)
		if _, err := (tpm2.PCRExtend{
			PCRHandle: tpm2.AuthHandle{Handle: tpm2.TPMHandle(PCR), Auth: tpm2.PasswordAuth(nil)},
			Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: d[:]}}},
		}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
	}
	return tpm
}

func register(t *testing.T, tpm transport.TPM) (r Register) {
	t.Helper()
	got, err := tpm2.PCRRead{PCRSelectionIn: selection()}.Execute(tpm)
	if err != nil || len(got.PCRValues.Digests) != 1 {
		t.Fatal(err)
	}
	copy(r[:], got.PCRValues.Digests[0].Buffer)
	return r
}

func selection() tpm2.TPMLPCRSelection {
	return tpm2.TPMLPCRSelection{PCRSelections: []tpm2.TPMSPCRSelection{{Hash: tpm2.TPMAlgSHA256, PCRSelect: tpm2.PCClientCompatible.PCRs(PCR)}}}
}

// authority loads the public half of the key that signs measurements.
func authority(t *testing.T, tpm transport.TPM, key *rsa.PrivateKey) (tpm2.TPMHandle, tpm2.TPM2BName) {
	t.Helper()
	loaded, err := tpm2.LoadExternal{Hierarchy: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.TPMTPublic{
		Type: tpm2.TPMAlgRSA, NameAlg: tpm2.TPMAlgSHA256, ObjectAttributes: tpm2.TPMAObject{SignEncrypt: true, UserWithAuth: true},
		Parameters: tpm2.NewTPMUPublicParms(tpm2.TPMAlgRSA, &tpm2.TPMSRSAParms{
			Scheme:  tpm2.TPMTRSAScheme{Scheme: tpm2.TPMAlgRSASSA, Details: tpm2.NewTPMUAsymScheme(tpm2.TPMAlgRSASSA, &tpm2.TPMSSigSchemeRSASSA{HashAlg: tpm2.TPMAlgSHA256})},
			KeyBits: 2048,
		}),
		Unique: tpm2.NewTPMUPublicID(tpm2.TPMAlgRSA, &tpm2.TPM2BPublicKeyRSA{Buffer: key.N.Bytes()}),
	})}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return loaded.ObjectHandle, loaded.Name
}

func primary(t *testing.T, tpm transport.TPM) tpm2.NamedHandle {
	t.Helper()
	p, err := tpm2.CreatePrimary{PrimaryHandle: tpm2.TPMRHOwner, InPublic: tpm2.New2B(tpm2.ECCSRKTemplate)}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	return tpm2.NamedHandle{Handle: p.ObjectHandle, Name: p.Name}
}

// TestSignedPolicy: what is sealed to the key that signs measurements opens
// under each image that this key signed, and under no other: an update does
// not lock anybody out, and another image gets nothing. swtpm judges.
func TestSignedPolicy(t *testing.T) {
	ours, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	state := t.TempDir()
	image := func(name string) ([][]byte, Register) {
		events := [][]byte{[]byte(".linux\x00"), []byte(name)}
		var r Register
		for _, e := range events {
			r.Extend(e)
		}
		return events, r
	}
	secret := []byte("the key of the state partition")
	var sealed *tpm2.CreateResponse

	t.Run("seal", func(t *testing.T) {
		events, want := image("X")
		tpm := powerOn(t, state, events)
		if got := register(t, tpm); got != want {
			t.Fatalf("register %x, predicted %x", got, want)
		}
		_, name := authority(t, tpm, ours)
		trial, done, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16, tpm2.Trial())
		if err != nil {
			t.Fatal(err)
		}
		defer done()
		if _, err := (tpm2.PolicyAuthorize{PolicySession: trial.Handle(), KeySign: name,
			CheckTicket: tpm2.TPMTTKVerified{Tag: tpm2.TPMSTVerified, Hierarchy: tpm2.TPMRHOwner}}).Execute(tpm); err != nil {
			t.Fatal(err)
		}
		policy, err := tpm2.PolicyGetDigest{PolicySession: trial.Handle()}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
		parent := primary(t, tpm)
		sealed, err = tpm2.Create{
			ParentHandle: parent,
			InSensitive:  tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret})}},
			InPublic: tpm2.New2B(tpm2.TPMTPublic{Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
				ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true}, AuthPolicy: policy.PolicyDigest}),
		}.Execute(tpm)
		if err != nil {
			t.Fatal(err)
		}
	})
	if t.Failed() || sealed == nil {
		return
	}
	for _, c := range []struct {
		name   string
		boots  string // what is measured
		signed string // what the signature is for
		by     *rsa.PrivateKey
		opens  bool
	}{
		{"the same image", "X", "X", ours, true},
		{"the next image", "Y", "Y", ours, true},
		{"an image with another's signature", "Z", "Z", theirs, false},
		{"an altered image with an old signature", "W", "X", ours, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			events, _ := image(c.boots)
			tpm := powerOn(t, state, events)
			_, value := image(c.signed)
			pcrsig, err := value.Sign(c.by)
			if err != nil {
				t.Fatal(err)
			}
			got, err := unseal(t, tpm, ours, pcrsig, sealed)
			if (err == nil) != c.opens || c.opens && !bytes.Equal(got, secret) {
				t.Errorf("%q, %v; opens: want %v", got, err, c.opens)
			}
		})
	}
}

// unseal goes the way of a node: the signature of .pcrsig, then the registers.
func unseal(t *testing.T, tpm transport.TPM, key *rsa.PrivateKey, pcrsig []byte, sealed *tpm2.CreateResponse) ([]byte, error) {
	var banks map[string][]signature
	if err := json.Unmarshal(pcrsig, &banks); err != nil {
		t.Fatal(err)
	}
	live := register(t, tpm).Policy()
	handle, name := authority(t, tpm, key)
	digest := sha256.Sum256(live[:])
	ticket, err := tpm2.VerifySignature{KeyHandle: handle, Digest: tpm2.TPM2BDigest{Buffer: digest[:]}, Signature: tpm2.TPMTSignature{
		SigAlg:    tpm2.TPMAlgRSASSA,
		Signature: tpm2.NewTPMUSignature(tpm2.TPMAlgRSASSA, &tpm2.TPMSSignatureRSA{Hash: tpm2.TPMAlgSHA256, Sig: tpm2.TPM2BPublicKeyRSA{Buffer: banks["sha256"][0].Signature}}),
	}}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	session, done, err := tpm2.PolicySession(tpm, tpm2.TPMAlgSHA256, 16)
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	if _, err := (tpm2.PolicyPCR{PolicySession: session.Handle(), Pcrs: selection()}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
	if _, err := (tpm2.PolicyAuthorize{PolicySession: session.Handle(), ApprovedPolicy: tpm2.TPM2BDigest{Buffer: live[:]}, KeySign: name, CheckTicket: ticket.Validation}).Execute(tpm); err != nil {
		return nil, err
	}
	parent := primary(t, tpm)
	object, err := tpm2.Load{ParentHandle: parent, InPrivate: sealed.OutPrivate, InPublic: sealed.OutPublic}.Execute(tpm)
	if err != nil {
		t.Fatal(err)
	}
	got, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: object.ObjectHandle, Name: object.Name, Auth: session}}.Execute(tpm)
	if err != nil {
		return nil, err
	}
	return got.OutData.Buffer, nil
}

func TestVerify(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	public, err := PublicKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var r, other Register
	other.Extend([]byte("x"))
	sig, err := r.Sign(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Verify(sig, public); err != nil {
		t.Error(err)
	}
	for name, err := range map[string]error{
		"another value": other.Verify(sig, public), "no key": r.Verify(sig, nil), "no signature": r.Verify(nil, public), "altered": r.Verify(bytes.Replace(sig, []byte(`"sig":"`), []byte(`"sig":"AAAA`), 1), public),
	} {
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
