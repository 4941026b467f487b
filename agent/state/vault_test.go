// SPDX-License-Identifier: Apache-2.0

package state

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/zos-node/zos/agent/luks"
	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/seal"
	"github.com/zos-node/zos/agent/seal/sealtest"
)

func maker(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func operator(t *testing.T) (*age.X25519Identity, []age.Recipient) {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	return id, []age.Recipient{id.Recipient()}
}

func disk(t *testing.T) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "partition"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if err := f.Truncate(4 << 20); err != nil {
		t.Fatal(err)
	}
	return f
}

// on is the guard of a machine that boots an image of a maker.
func on(t *testing.T, tpm string, image string, by *rsa.PrivateKey) (Guard, func()) {
	t.Helper()
	boot := sealtest.Boot{Image: image, Firmware: true}
	raw, off := sealtest.PowerOn(t, tpm, boot)
	g := Guard{TPM: seal.Use(raw), Signed: boot.Sign(t, by)}
	r, err := g.TPM.Register()
	if err == nil {
		_, err = g.Signed.For(r)
	}
	g.Why = err
	return g, off
}

// made is a volume after its first boot.
func made(t *testing.T, g Guard, to []age.Recipient) (f *os.File, key []byte, kind Kind) {
	t.Helper()
	f = disk(t)
	h, key, kind, err := g.make(f, to)
	if err == nil {
		err = h.Commit(f)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f, key, kind
}

func open(t *testing.T, g Guard, f *os.File) ([]byte, Kind, error) {
	t.Helper()
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	return g.open(f, h)
}

// recoveryText does what an operator does.
func recoveryText(t *testing.T, f *os.File, id age.Identity) string {
	t.Helper()
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	var v recoveryKey
	if err := json.Unmarshal(h.Token(tokenRecovery), &v); err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(armor.NewReader(strings.NewReader(v.Age)), id)
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestLife is the story of one disk: sealed, updated, stolen, moved, recovered.
func TestLife(t *testing.T) {
	ours, theirs := maker(t), maker(t)
	id, to := operator(t)
	first, second := t.TempDir(), t.TempDir()

	g, off := on(t, first, "X", ours)
	f, key, kind := made(t, g, to)
	off()
	if kind != Sealed {
		t.Fatalf("the first boot made it %s: %v", kind, g.Why)
	}
	text := recoveryText(t, f, id)
	whole, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(whole, key[:16]) || bytes.Contains(whole, []byte(text)) {
		t.Error("a key stands on the disk in clear")
	}

	for _, c := range []struct {
		name, tpm, image string
		by               *rsa.PrivateKey
		locked           error
	}{
		{"second boot", first, "X", ours, nil},
		{"after an update", first, "Y", ours, nil},
		{"another maker's image", first, "Z", theirs, pcrsig.ErrMaker},
		{"another machine", second, "X", ours, seal.ErrOther},
	} {
		g, off := on(t, c.tpm, c.image, c.by)
		got, kind, err := open(t, g, f)
		off()
		if c.locked == nil && (err != nil || kind != Sealed || !bytes.Equal(got, key)) {
			t.Errorf("%s: %s, %v", c.name, kind, err)
		}
		if c.locked != nil && (!errors.Is(err, errLocked) || !errors.Is(err, c.locked) || got != nil) {
			t.Errorf("%s: %v, want %v", c.name, err, c.locked)
		}
	}
	none := Guard{Why: seal.ErrNone}
	if _, _, err := open(t, none, f); !errors.Is(err, errLocked) || !errors.Is(err, seal.ErrNone) {
		t.Errorf("a machine without a TPM: %v", err)
	}

	// The recovery key opens it anywhere; only a machine that can seal gets it for
	// good, and then the old one is out.
	before := append([]byte{}, whole...)
	if got, kind, err := none.recover(f, text); err != nil || kind != Recovery || !bytes.Equal(got, key) {
		t.Errorf("recovered without a TPM: %s, %v", kind, err)
	}
	if now, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(now, before) {
		t.Errorf("it was changed by a machine that cannot seal, %v", err)
	}
	g, off = on(t, second, "X", ours)
	if _, _, err := g.recover(f, strings.Repeat("aaaa-", 12)+"aaaa"); !errors.Is(err, luks.ErrPassphrase) {
		t.Errorf("a wrong recovery key: %v", err)
	}
	if got, kind, err := g.recover(f, text); err != nil || kind != Sealed || !bytes.Equal(got, key) {
		t.Errorf("recovered: %s, %v", kind, err)
	}
	if got, kind, err := open(t, g, f); err != nil || kind != Sealed || !bytes.Equal(got, key) {
		t.Errorf("after the recovery: %s, %v", kind, err)
	}
	off()
	g, off = on(t, first, "X", ours)
	defer off()
	if _, _, err := open(t, g, f); !errors.Is(err, seal.ErrOther) {
		t.Errorf("the machine that it was taken from: %v", err)
	}
	if again := recoveryText(t, f, id); again != text {
		t.Error("the recovery key is another one")
	}
}

// TestWithoutSealing: what cannot be sealed is said, and why.
func TestWithoutSealing(t *testing.T) {
	_, to := operator(t)
	unsigned, off := on(t, t.TempDir(), "", maker(t))
	defer off()
	for name, c := range map[string]struct {
		g    Guard
		says string
	}{
		"no TPM":             {Guard{Why: seal.ErrNone}, "no TPM"},
		"no signed image":    {Guard{Why: pcrsig.ErrNone}, "no signed measurement"},
		"nothing measured":   {unsigned, "register 11 is zero"},
		"a TPM that answers": {Guard{TPM: unsigned.TPM, Why: seal.ErrRegisters}, "vouch for nothing"},
	} {
		f, key, kind := made(t, c.g, to)
		if kind != Clear {
			t.Errorf("%s: %s", name, kind)
		}
		got, kind, err := open(t, c.g, f)
		if err != nil || kind != Clear || !bytes.Equal(got, key) {
			t.Errorf("%s: %s, %v", name, kind, err)
		}
		h, err := luks.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		all := strings.Join(lacks(kind, h, c.g), "; ")
		if !strings.Contains(all, "whoever has the disk") || !strings.Contains(all, c.says) || strings.Contains(all, "no recovery key") {
			t.Errorf("%s: it says %q", name, all)
		}
	}
	f, _, _ := made(t, Guard{Why: seal.ErrNone}, nil)
	h, err := luks.Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(lacks(Clear, h, Guard{}), "; "); !strings.Contains(all, "no recovery key") {
		t.Errorf("without operators it says %q", all)
	}
}

// TestOperatorsWay: the procedure of docs/boot.md, with Debian's programs.
func TestOperatorsWay(t *testing.T) {
	for _, tool := range []string{"age", "cryptsetup", "python3"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP judge: %v", err)
		}
	}
	id, to := operator(t)
	f, key, _ := made(t, Guard{Why: seal.ErrNone}, to)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "operator.key"), []byte(id.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("bash", "-ec", `
		cryptsetup luksDump --dump-json-metadata "$1" |
			python3 -c 'import json,sys; print([t["value"]["age"] for t in json.load(sys.stdin)["tokens"].values() if t["type"] == "zos-recovery"][0])' |
			age -d -i "$2/operator.key" > "$2/recovery.key"
		cryptsetup open --test-passphrase --key-file "$2/recovery.key" "$1"
		cryptsetup luksDump --batch-mode --dump-volume-key --key-file "$2/recovery.key" --volume-key-file "$2/volume.key" "$1"`, "-", f.Name(), dir).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if got, err := os.ReadFile(filepath.Join(dir, "volume.key")); err != nil || !bytes.Equal(got, key) {
		t.Errorf("the volume's key: %v", err)
	}
}
