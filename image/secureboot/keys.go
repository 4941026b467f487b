// SPDX-License-Identifier: Apache-2.0

package secureboot

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// Pair is a key and its certificate.
type Pair struct {
	Cert *x509.Certificate
	Key  crypto.Signer
}

// Keys are an operator's three.
type Keys struct {
	PK, KEK, DB Pair
	PCR         *rsa.PrivateKey // signs predicted measurements, for sealing
	// Also are certificates of others that go into db: the makers of a
	// machine's option ROMs, for instance, whose programs the firmware would
	// refuse otherwise.
	Also []*x509.Certificate
}

// Names of the variables, and of the files of a key folder.
const (
	PK  = "PK"
	KEK = "KEK"
	DB  = "db"
	PCR = "pcr"
)

const (
	bits     = 2048
	lifetime = 30 // years; no firmware looks at it
	keyExt   = ".key"
	certExt  = ".crt"
	authExt  = ".auth"
)

// Generate makes new keys for whoever name is.
func Generate(name string, now time.Time) (*Keys, error) {
	pcr, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		return nil, fmt.Errorf("make key %s: %w", PCR, err)
	}
	k := &Keys{PCR: pcr}
	for role, to := range map[string]*Pair{PK: &k.PK, KEK: &k.KEK, DB: &k.DB} {
		key, err := rsa.GenerateKey(rand.Reader, bits)
		if err != nil {
			return nil, fmt.Errorf("make key %s: %w", role, err)
		}
		number, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
		if err != nil {
			return nil, fmt.Errorf("make key %s: %w", role, err)
		}
		template := &x509.Certificate{
			SerialNumber: number.Add(number, big.NewInt(1)), Subject: pkix.Name{CommonName: name + " " + role},
			NotBefore: now.UTC().Truncate(time.Second), NotAfter: now.UTC().AddDate(lifetime, 0, 0).Truncate(time.Second),
			BasicConstraintsValid: true, IsCA: role != DB,
			KeyUsage: x509.KeyUsageDigitalSignature,
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			return nil, fmt.Errorf("make certificate %s: %w", role, err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, fmt.Errorf("make certificate %s: %w", role, err)
		}
		*to = Pair{cert, key}
	}
	return k, nil
}

// owner marks our entries among those of others: the first bytes of the
// platform key's identifier.
func (k *Keys) owner() (g [16]byte) {
	copy(g[:], k.PK.Cert.SubjectKeyId)
	if len(k.PK.Cert.SubjectKeyId) == 0 {
		copy(g[:], k.PK.Cert.Signature)
	}
	return g
}

// Lists are the contents of the three variables, by name.
func (k *Keys) Lists() map[string][]byte {
	db := signatureList(k.owner(), k.DB.Cert)
	for _, c := range k.Also {
		db = append(db, signatureList(k.owner(), c)...)
	}
	return map[string][]byte{PK: signatureList(k.owner(), k.PK.Cert), KEK: signatureList(k.owner(), k.KEK.Cert), DB: db}
}

// Auth are the files that enrol the keys, by file name: db allowed by KEK,
// KEK and PK by PK.
func (k *Keys) Auth(at time.Time) (map[string][]byte, error) {
	all := map[string][]byte{}
	lists := k.Lists()
	for name, by := range map[string]Pair{PK: k.PK, KEK: k.PK, DB: k.KEK} {
		vendor := guidGlobal
		if name == DB {
			vendor = guidDatabase
		}
		b, err := by.auth(name, vendor, at, lists[name])
		if err != nil {
			return nil, err
		}
		all[name+authExt] = b
	}
	return all, nil
}

// Write puts the keys into a folder that must not have any yet: one that exists
// may have signed images and stand in firmware (fs.ErrExist).
func (k *Keys) Write(dir string, at time.Time) error {
	files, err := k.files(at)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keys: %w", err)
	}
	for _, name := range slices.Sorted(maps.Keys(files)) {
		switch _, err := os.Lstat(filepath.Join(dir, name)); {
		case err == nil:
			return fmt.Errorf("keys: %s has %s already: %w", dir, name, fs.ErrExist)
		case !errors.Is(err, fs.ErrNotExist):
			return fmt.Errorf("keys: %w", err)
		}
	}
	for name, b := range files {
		mode := os.FileMode(0o644)
		if filepath.Ext(name) == keyExt {
			mode = 0o600
		}
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
		if err != nil {
			return fmt.Errorf("keys: %w", err)
		}
		_, err = f.Write(b)
		if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
			return fmt.Errorf("keys: %w", errors.Join(err, os.Remove(f.Name()))) // half a key is none
		}
	}
	return nil
}

// files are what a folder of these keys holds, by name.
func (k *Keys) files(at time.Time) (map[string][]byte, error) {
	files, err := k.Auth(at)
	if err != nil {
		return nil, err
	}
	for name, key := range map[string]crypto.Signer{PK: k.PK.Key, KEK: k.KEK.Key, DB: k.DB.Key, PCR: k.PCR} {
		secret, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		files[name+keyExt] = pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: secret})
	}
	for name, p := range map[string]Pair{PK: k.PK, KEK: k.KEK, DB: k.DB} {
		files[name+certExt] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: p.Cert.Raw})
		files[name+".cer"] = p.Cert.Raw // what firmware menus read
	}
	for i, c := range k.Also {
		files[fmt.Sprintf("db-also-%02d%s", i, certExt)] = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})
	}
	return files, nil
}

// Signer is what building an image needs of a key folder.
type Signer struct {
	DB   Pair
	PCR  crypto.Signer
	Auth map[string][]byte // for enrolment, as they were made
}

// Open reads the db and pcr keys and the enrolment files of a folder. PK and KEK are
// not needed to build images and may be kept elsewhere.
func Open(dir string) (*Signer, error) {
	read := func(name string) ([]byte, error) {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, fmt.Errorf("keys: %w", err)
		}
		return b, nil
	}
	block := func(name string) ([]byte, error) {
		b, err := read(name)
		if err != nil {
			return nil, err
		}
		p, _ := pem.Decode(b)
		if p == nil {
			return nil, fmt.Errorf("keys: %s is not PEM", name)
		}
		return p.Bytes, nil
	}
	private := func(name string) (*rsa.PrivateKey, error) {
		b, err := block(name)
		if err != nil {
			return nil, err
		}
		key, err := x509.ParsePKCS8PrivateKey(b)
		if err != nil {
			return nil, fmt.Errorf("keys: %s: %w", name, err)
		}
		k, ok := key.(*rsa.PrivateKey)
		if !ok {
			return nil, fmt.Errorf("keys: %s is no RSA key", name)
		}
		return k, nil
	}
	s := &Signer{Auth: map[string][]byte{}}
	db, err := private(DB + keyExt)
	if err != nil {
		return nil, err
	}
	pcr, err := private(PCR + keyExt)
	if err != nil {
		return nil, err
	}
	s.PCR = pcr
	raw, err := block(DB + certExt)
	if err != nil {
		return nil, err
	}
	if s.DB.Cert, err = x509.ParseCertificate(raw); err != nil {
		return nil, fmt.Errorf("keys: %s: %w", DB+certExt, err)
	}
	s.DB.Key = db
	if public, ok := s.DB.Cert.PublicKey.(*rsa.PublicKey); !ok || !db.PublicKey.Equal(public) {
		return nil, fmt.Errorf("keys: %s and %s do not belong together", DB+keyExt, DB+certExt)
	}
	for _, name := range []string{PK, KEK, DB} {
		if s.Auth[name+authExt], err = read(name + authExt); err != nil {
			return nil, err
		}
	}
	return s, nil
}
