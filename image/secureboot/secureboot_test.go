// SPDX-License-Identifier: Apache-2.0

package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

var now = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

var shared = sync.OnceValues(func() (*Keys, error) { return Generate("test", now) })

func keys(t *testing.T) *Keys {
	t.Helper()
	k, err := shared()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func tool(t *testing.T, name string) string {
	t.Helper()
	p, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("SKIP judge %s: not installed", name)
	}
	return p
}

// sampleProgram is a small PE32+ file with two sections, and bytes behind them.
func sampleProgram(t *testing.T) []byte {
	t.Helper()
	b := make([]byte, 0x600)
	le := binary.LittleEndian
	copy(b, "MZ")
	le.PutUint32(b[0x3c:], 0x80)
	copy(b[0x80:], "PE\x00\x00")
	h := b[0x84:]
	le.PutUint16(h, 0x8664)
	le.PutUint16(h[2:], 2)
	le.PutUint16(h[16:], 240) // optional header
	le.PutUint16(h[18:], 0x22)
	o := h[20:]
	le.PutUint16(o, 0x20b)
	le.PutUint32(o[16:], 0x1000) // entry
	le.PutUint32(o[32:], 0x1000)
	le.PutUint32(o[36:], 0x200)
	le.PutUint32(o[56:], 0x3000)
	le.PutUint32(o[60:], 0x200) // headers
	le.PutUint32(o[64:], 0xdeadbeef)
	le.PutUint16(o[68:], 10)
	le.PutUint32(o[108:], 16)
	for i := range 2 {
		s := o[240+40*i:]
		copy(s, []string{".text", ".data"}[i])
		le.PutUint32(s[8:], 0x200)
		le.PutUint32(s[12:], uint32(0x1000*(i+1)))
		le.PutUint32(s[16:], 0x200)
		le.PutUint32(s[20:], uint32(0x200*(i+1)))
		le.PutUint32(s[36:], 0x60000020)
	}
	for i := 0x200; i < len(b); i++ {
		b[i] = byte(i * 7)
	}
	return append(b, "odd"...)
}

// TestSignJudge: sbverify, which did not make the signature, finds it good,
// and finds each altered byte out.
func TestSignJudge(t *testing.T) {
	sbverify := tool(t, "sbverify")
	k, dir := keys(t), t.TempDir()
	signed, err := k.DB.Sign(sampleProgram(t))
	if err != nil {
		t.Fatal(err)
	}
	cert := filepath.Join(dir, "crt")
	other := filepath.Join(dir, "other")
	for name, c := range map[string]*x509.Certificate{cert: k.DB.Cert, other: k.KEK.Cert} {
		if err := os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	verify := func(b []byte, cert string) error {
		file := filepath.Join(dir, "pe")
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(sbverify, "--cert", cert, file).CombinedOutput()
		if err != nil {
			return errors.New(string(out))
		}
		return nil
	}
	if err := verify(signed, cert); err != nil {
		t.Fatalf("sbverify: %v", err)
	}
	if err := verify(signed, other); err == nil {
		t.Error("sbverify takes it for another key's")
	}
	for _, at := range []int{0x10, 0x210, 0x450, 0x601} {
		bad := bytes.Clone(signed)
		bad[at] ^= 1
		if err := verify(bad, cert); err == nil {
			t.Errorf("byte %#x altered: sbverify takes it", at)
		}
	}
}

func TestSign(t *testing.T) {
	k := keys(t)
	one, err1 := k.DB.Sign(sampleProgram(t))
	two, err2 := k.DB.Sign(sampleProgram(t))
	if err1 != nil || err2 != nil || !bytes.Equal(one, two) {
		t.Errorf("not the same twice: %v, %v", err1, err2)
	}
	plain, err1 := Digest(append(sampleProgram(t), 0, 0, 0, 0, 0))
	signed, err2 := Digest(one)
	if err1 != nil || err2 != nil || plain != signed {
		t.Errorf("the signature changes what is signed: %x and %x, %v, %v", plain, signed, err1, err2)
	}
	if _, err := k.DB.Sign(one); !errors.Is(err, ErrSigned) {
		t.Errorf("signed twice: %v", err)
	}
	if yes, err := Signed(one); err != nil || !yes {
		t.Errorf("signed: %v, %v", yes, err)
	}
	for name, b := range map[string][]byte{"nothing": nil, "text": []byte("MZ"), "half": sampleProgram(t)[:0x300]} {
		if _, err := k.DB.Sign(b); !errors.Is(err, ErrPE) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestListsJudge: efitools writes the same signature lists.
func TestListsJudge(t *testing.T) {
	judge := tool(t, "cert-to-efi-sig-list")
	k, dir := keys(t), t.TempDir()
	g := k.owner()
	owner := guidString(g[:])
	for name, p := range map[string]Pair{PK: k.PK, KEK: k.KEK, DB: k.DB} {
		crt, esl := filepath.Join(dir, "crt"), filepath.Join(dir, "esl")
		if err := os.WriteFile(crt, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw}), 0o644); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(judge, "-g", owner, crt, esl).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		theirs, err := os.ReadFile(esl)
		if err != nil || !bytes.Equal(theirs, k.Lists()[name]) {
			t.Errorf("%s: %d bytes, efitools has %d others: %v", name, len(k.Lists()[name]), len(theirs), err)
		}
	}
}

func guidString(b []byte) string {
	s := hex.EncodeToString(guid(hex.EncodeToString(b)))
	return s[:8] + "-" + s[8:12] + "-" + s[12:16] + "-" + s[16:20] + "-" + s[20:]
}

func TestFolder(t *testing.T) {
	k, dir := keys(t), filepath.Join(t.TempDir(), "keys")
	withOther := *k
	withOther.Also = []*x509.Certificate{k.KEK.Cert}
	if err := withOther.Write(dir, now); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(filepath.Join(dir, "db.key"))
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode of a private key: %v, %v", st.Mode(), err)
	}
	s, err := Open(dir)
	if err != nil || len(s.Auth) != 3 || !s.DB.Cert.Equal(k.DB.Cert) {
		t.Fatalf("%+v, %v", s, err)
	}
	if !bytes.HasSuffix(s.Auth["db.auth"], signatureList(k.owner(), k.KEK.Cert)) {
		t.Error("the other certificate is not in db")
	}
	before, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	modes := map[os.FileMode]int{}
	for _, e := range before {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if secret := filepath.Ext(e.Name()) == ".key"; secret != (info.Mode().Perm() == 0o600) {
			t.Errorf("%s has mode %v", e.Name(), info.Mode())
		}
		modes[info.Mode().Perm()]++
	}
	if modes[0o600] != 4 || len(before) != 14 {
		t.Errorf("%d files, %d of them secret", len(before), modes[0o600])
	}
	// One file is enough to be refused, whole: nothing is added beside it.
	if err := os.Remove(filepath.Join(dir, "PK.key")); err != nil {
		t.Fatal(err)
	}
	if err := k.Write(dir, now); !errors.Is(err, fs.ErrExist) || strings.Count(err.Error(), "\n") != 0 {
		t.Errorf("a folder with keys: %v", err)
	}
	if after, err := os.ReadDir(dir); err != nil || len(after) != 13 {
		t.Errorf("%d files after a refusal, want 13, %v", len(after), err)
	}
	if err := os.Rename(filepath.Join(dir, "KEK.crt"), filepath.Join(dir, "db.crt")); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(dir); err == nil || !strings.Contains(err.Error(), "belong together") {
		t.Errorf("another key's certificate: %v", err)
	}
}

func FuzzDigest(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Add(sampleProgram(&testing.T{}))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := Digest(b); err == nil && len(b) < 200 {
			t.Error("a program out of nothing")
		}
	})
}
