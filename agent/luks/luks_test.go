// SPDX-License-Identifier: Apache-2.0

package luks

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func volume(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.Truncate(8 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

// made is a volume with two slots.
func made(t *testing.T) (f *os.File, key []byte) {
	t.Helper()
	f, key = volume(t), random(KeySize)
	if _, err := Read(f); !errors.Is(err, ErrNone) {
		t.Fatalf("an empty disk: %v", err)
	}
	h, err := New(key)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(h.Add(f, key, []byte("one"), "t-one", map[string]string{"a": "b"}), h.Add(f, key, []byte("two"), "t-two", 2), h.Commit(f)); err != nil {
		t.Fatal(err)
	}
	return f, key
}

func TestSlots(t *testing.T) {
	f, key := made(t)
	h, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if v := string(h.Token("t-one")); v != `{"a":"b"}` {
		t.Errorf("token %s", v)
	}
	for _, c := range []struct {
		typ, pass string
		fits      bool
	}{{"t-one", "one", true}, {"t-two", "two", true}, {"t-one", "two", false}, {"t-two", "", false}, {"t-three", "one", false}} {
		got, err := h.Unlock(f, c.typ, []byte(c.pass))
		if (err == nil) != c.fits || c.fits && !bytes.Equal(got, key) {
			t.Errorf("%s with %q: %v", c.typ, c.pass, err)
		}
	}
	old := make([]byte, slotSize)
	if _, err := f.ReadAt(old, slotAt(0)); err != nil {
		t.Fatal(err)
	}
	// The new slot of a type is there before the old one goes.
	h.Remove("t-one")
	if err := errors.Join(h.Add(f, key, []byte("new"), "t-one", nil), h.Commit(f)); err != nil {
		t.Fatal(err)
	}
	if h, err = Read(f); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Unlock(f, "t-one", []byte("one")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("the replaced passphrase: %v", err)
	}
	if got, err := h.Unlock(f, "t-one", []byte("new")); err != nil || !bytes.Equal(got, key) {
		t.Error(err)
	}
}

// TestEitherCopy: one damaged copy, whichever, is no loss, and the newer counts.
func TestEitherCopy(t *testing.T) {
	for i := range magics {
		f, key := made(t)
		if _, err := f.WriteAt([]byte{1}, int64(i*headerSize+binarySize+7)); err != nil {
			t.Fatal(err)
		}
		h, err := Read(f)
		if err != nil {
			t.Fatalf("copy %d damaged: %v", i, err)
		}
		if got, err := h.Unlock(f, "t-two", []byte("two")); err != nil || !bytes.Equal(got, key) {
			t.Errorf("copy %d damaged: %v", i, err)
		}
	}
	f, _ := made(t)
	for i := range magics {
		if _, err := f.WriteAt([]byte{1}, int64(i*headerSize+binarySize+7)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Read(f); !errors.Is(err, ErrHeader) {
		t.Errorf("both damaged: %v", err)
	}
}

// TestForeign: a header that is whole but says something else than ours is
// refused: who can write to the disk chooses no cipher.
func TestForeign(t *testing.T) {
	for name, change := range map[string]func(m *metadata){
		"no cipher":       func(m *metadata) { s := m.Segments["0"]; s.Encryption = "cipher_null-ecb"; m.Segments["0"] = s },
		"no segment":      func(m *metadata) { m.Segments = nil },
		"two segments":    func(m *metadata) { m.Segments["1"] = m.Segments["0"] },
		"other place":     func(m *metadata) { s := m.Segments["0"]; s.Offset = "0"; m.Segments["0"] = s },
		"slot elsewhere":  func(m *metadata) { s := m.Keyslots["0"]; s.Area.Offset = "9"; m.Keyslots["0"] = s },
		"slot unknown":    func(m *metadata) { m.Keyslots["7"] = m.Keyslots["0"] },
		"slot in clear":   func(m *metadata) { s := m.Keyslots["0"]; s.Area.Encryption = "cipher_null"; m.Keyslots["0"] = s },
		"endless":         func(m *metadata) { s := m.Keyslots["0"]; s.KDF.Iterations = 1 << 30; m.Keyslots["0"] = s },
		"no digest":       func(m *metadata) { m.Digests = nil },
		"token elsewhere": func(m *metadata) { m.Tokens["0"] = Token{"t", []string{"1"}, nil} },
	} {
		f, _ := made(t)
		h, err := Read(f)
		if err != nil {
			t.Fatal(err)
		}
		change(&h.meta)
		if err := h.Commit(f); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(f); !errors.Is(err, ErrHeader) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestCryptsetup: Debian's cryptsetup reads the header, opens it with each
// passphrase and gets the same volume key.
func TestCryptsetup(t *testing.T) {
	if _, err := exec.LookPath("cryptsetup"); err != nil {
		t.Skipf("SKIP cryptsetup: %v", err)
	}
	f, key := made(t)
	run := func(pass string, args ...string) (string, error) {
		cmd := exec.Command("cryptsetup", args...)
		cmd.Stdin = strings.NewReader(pass)
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	dump, err := run("", "luksDump", "--dump-json-metadata", f.Name())
	if err != nil {
		t.Fatalf("%v: %s", err, dump)
	}
	var m metadata
	if err := json.Unmarshal([]byte(dump), &m); err != nil || len(m.Keyslots) != 2 || len(m.Tokens) != 2 {
		t.Errorf("%v: %s", err, dump)
	}
	if out, err := run("", "repair", "--batch-mode", f.Name()); err != nil {
		t.Errorf("repair: %v: %s", err, out)
	}
	for pass, fits := range map[string]bool{"one": true, "two": true, "three": false} {
		if out, err := run(pass, "open", "--test-passphrase", "--key-file=-", f.Name()); (err == nil) != fits {
			t.Errorf("%q: %v: %s", pass, err, out)
		}
	}
	file := filepath.Join(t.TempDir(), "key")
	if out, err := run("one", "luksDump", "--batch-mode", "--dump-volume-key", "--volume-key-file", file, "--key-file=-", f.Name()); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := os.ReadFile(file); err != nil || !bytes.Equal(got, key) {
		t.Errorf("volume key: %v", err)
	}
	// And the other way round: a slot that cryptsetup adds does not disturb ours,
	// nor do ours what it says of the header.
	if out, err := run("", "token", "export", "--token-id", "0", f.Name()); err != nil || !regexp.MustCompile(`"type": ?"t-one"`).MatchString(out) {
		t.Errorf("token: %v: %s", err, out)
	}
}

func FuzzRead(f *testing.F) {
	h, err := New(random(KeySize))
	if err != nil {
		f.Fatal(err)
	}
	b, err := h.encode(0)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) < headerSize {
			return
		}
		// What the checksum keeps out is let in here.
		sum := checksum(b[:headerSize])
		copy(b[atSum:], sum[:])
		if h, err := decode(b[:headerSize], 0); err == nil {
			if _, err := h.Unlock(bytes.NewReader(make([]byte, DataOffset)), "t", nil); err == nil {
				t.Error("opened")
			}
		}
	})
}
