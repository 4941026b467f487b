// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"bytes"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// said fails unless an error says why.
func said(t *testing.T, what string, err error, why string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), why) {
		t.Errorf("%s: %v, want it to say %q", what, err, why)
	}
}

func TestPolicyOrigins(t *testing.T) {
	policy, _ := keys(t)
	for _, bad := range []string{"", "a b", "a+b", "a\nb", "a\tb"} {
		p := policy
		p.Origin = bad
		said(t, bad, p.Validate(), "is empty or has a space")
	}
}

// TestCheckpointTexts: right signatures do not make a text right.
func TestCheckpointTexts(t *testing.T) {
	policy, signers := keys(t)
	hash := tlog.Hash{1}.String()
	signed := func(text string, by ...note.Signer) []byte {
		b, err := note.Sign(&note.Note{Text: text}, by...)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	good := origin + "\n7\n" + hash + "\n"
	if _, err := policy.Open(signed(good, signers.Log, signers.Cosigner)); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ text, why string }{
		"two lines":        {origin + "\n7\n", "three lines"},
		"four lines":       {good + "more\n", "three lines"},
		"another origin":   {"other\n7\n" + hash + "\n", "has origin"},
		"negative size":    {origin + "\n-7\n" + hash + "\n", "has size"},
		"no number":        {origin + "\nx\n" + hash + "\n", "has size"},
		"too large":        {origin + "\n99999999999999999999\n" + hash + "\n", "has size"},
		"leading zero":     {origin + "\n07\n" + hash + "\n", "canonical spelling"},
		"no hash":          {origin + "\n7\nAAAA\n", "has root hash"},
		"bits beyond hash": {origin + "\n7\n" + strings.TrimSuffix(hash, "A=") + "B=\n", ""},
	} {
		_, err := policy.Open(signed(c.text, signers.Log, signers.Cosigner))
		said(t, name, err, c.why)
		_, err = ParseTree(origin, c.text)
		said(t, name, err, c.why)
	}
	_, err := policy.Open(signed(good, signers.Cosigner))
	said(t, "without the log's signature", err, "is not signed by")
	_, err = policy.Open(signed(good, signers.Log))
	said(t, "without a cosignature", err, "0 of 1 cosignatures")
	_, stranger := keys(t)
	_, err = policy.Open(signed(good, stranger.Log, stranger.Cosigner))
	said(t, "strangers", err, "no signature of a known key")
	_, err = policy.Open([]byte("x"))
	said(t, "no note", err, "malformed")
	_, err = policy.Open(bytes.Repeat([]byte("x"), MaxCheckpoint+1))
	said(t, "too long", err, "at most 16384")
	var nobody Policy
	_, err = nobody.Open(signed(good, signers.Log))
	said(t, "no policy", err, "checkpoint policy")
}

func TestSignersRefuseKeys(t *testing.T) {
	logKey, _, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	_, err = NewSigners("junk", logKey)
	said(t, "log key", err, "log key")
	_, err = NewSigners(logKey, "junk")
	said(t, "validator key", err, "validator key")
	_, err = CosignerKey("junk")
	said(t, "cosigner key", err, "cosigner key")
}

// TestDirReads only what is a file of the log, and cuts what is narrower.
func TestDirReads(t *testing.T) {
	_, signers := keys(t)
	top := t.TempDir()
	dir := Dir(filepath.Join(top, "log"))
	w := NewWriter(dir)
	var entries [][]byte
	for range 9 {
		entries = append(entries, []byte("entry"))
	}
	if err := w.Append(entries); err != nil {
		t.Fatal(err)
	}
	publish(t, w, signers)
	if err := os.WriteFile(filepath.Join(top, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"../secret", "tile/../../secret", "/etc/hostname", "tile", "tile/0", "", "tile/0/001", "tile/1/000.p/1", "tile/entries/001", "root/1.json"} {
		if b, err := dir.Read(path); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %q, %v", path, b, err)
		}
	}
	b, err := dir.Read("tile/entries/000.p/4")
	if err != nil {
		t.Fatal(err)
	}
	if list, used, err := CutBundle(b, 4); err != nil || used != len(b) || len(list) != 4 {
		t.Errorf("a narrow bundle: %d entries in %d of %d bytes, %v", len(list), used, len(b), err)
	}
}

// TestDirTellsBrokenFromAbsent: what cannot be read is not what is not there,
// which a reader takes for a log that went on.
func TestDirTellsBrokenFromAbsent(t *testing.T) {
	dir := t.TempDir()
	for _, folder := range []string{"tile/0/002", "tile/0/003.p/9", "tile/0/004.p/5"} {
		if err := os.MkdirAll(filepath.Join(dir, folder), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, path := range []string{"tile/0/002", "tile/0/002.p/5", "tile/0/003.p/5", "tile/0/004.p/5"} {
		if b, err := Dir(dir).Read(path); err == nil || errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %q, %v", path, b, err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "tile/0/001"), make([]byte, Width*tlog.HashSize), 0o644); err != nil {
		t.Fatal(err)
	}
	if b, err := Dir(dir).Read("tile/0/001.p/5"); err != nil || len(b) != 5*tlog.HashSize {
		t.Errorf("cut from the full tile: %d bytes, %v", len(b), err)
	}
}

func TestCutRefuses(t *testing.T) {
	_, err := Cut("tile/0/000.p/5", make([]byte, 5*tlog.HashSize-1), 5)
	said(t, "half a hash", err, "want 160")
	_, err = Cut("tile/entries/000.p/2", AppendEntry(nil, []byte("one")), 2)
	said(t, "one entry of two", err, "ends before entry 1")
	_, _, err = CutBundle([]byte{0}, 1)
	said(t, "half a length", err, "ends before entry 0")
	_, _, err = CutBundle([]byte{0, 2, 'x'}, 1)
	said(t, "half an entry", err, "ends inside entry 0")
}

// TestWriterSaysWhatFailed: nothing is published that is not on the disk.
func TestWriterSaysWhatFailed(t *testing.T) {
	w := NewWriter(Dir(t.TempDir()))
	w.push([]byte("never written"))
	err := w.Publish(1, nil)
	said(t, "not written", err, "only 0 are on the disk")

	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	said(t, "a file for a folder", NewWriter(Dir(file)).Append([][]byte{{1}}), "write tiles")
	said(t, "a file for a folder", NewWriter(Dir(file)).WriteRoot(1, []byte("{}")), "not a directory")

	dir := t.TempDir()
	w = NewWriter(Dir(dir))
	if err := os.MkdirAll(filepath.Join(dir, "checkpoint", "x"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := w.Append([][]byte{{1}}); err != nil {
		t.Fatal(err)
	}
	err = w.Publish(1, nil)
	said(t, "a folder for the checkpoint", err, "write checkpoint")
	if list, err := filepath.Glob(filepath.Join(dir, ".new-*")); err != nil || len(list) != 0 {
		t.Errorf("left over: %v, %v", list, err)
	}
	if _, err := os.Stat(filepath.Join(dir, "tile")); err != nil {
		t.Errorf("the tiles are gone: %v", err)
	}
}
