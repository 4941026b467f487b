// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/state"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/qemu"
)

// sealedWorld is one node's disk, and the images that are tried on it.
type sealedWorld struct {
	t        *testing.T
	operator *age.X25519Identity
	table    []string
}

// build makes an image by a maker; what tells two of them apart is a word of
// their command lines, said once more.
func (w *sealedWorld) build(by *secureboot.Signer, version int) string {
	w.t.Helper()
	r := request(w.t, "vm-x86_64", filepath.Join(w.t.TempDir(), "image"))
	r.Keys = by
	r.Board.Cmdline += strings.Repeat(" panic=10", version)
	s, err := seed.Decode(r.Seed)
	if err != nil {
		w.t.Fatal(err)
	}
	s.Recovery = []string{w.operator.Recipient().String()}
	if r.Seed, err = s.Encode(); err != nil {
		w.t.Fatal(err)
	}
	if _, err := image.Build(context.Background(), r); err != nil {
		w.t.Fatal(err)
	}
	// Secure Boot stays off: firmware that does not take another maker's image is
	// TestSecureBoot's, here it is the TPM that has to refuse.
	disk := filepath.Join(w.t.TempDir(), "disk.img")
	if err := image.Rewrite(filepath.Join(r.Out, image.MediumDisk), disk, func(b *image.Boot) { b.Keys = nil }); err != nil {
		w.t.Fatal(err)
	}
	return disk
}

// sealLimit is for one boot: a software TPM on a loaded machine takes its time.
const sealLimit = 15 * time.Minute

const stateSize = image.StateMiB << 20

// kept is the state partition of a disk image.
func kept(t *testing.T, img string) (f *os.File, at int64) {
	t.Helper()
	f, err := os.OpenFile(img, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	return f, st.Size() - 1<<20 - stateSize // behind it only the backup table
}

// carry takes the state of one disk to another, as an update that replaces the
// rest of it, or a thief, would.
func carry(t *testing.T, from, to string) {
	t.Helper()
	a, at := kept(t, from)
	b, bt := kept(t, to)
	if _, err := io.Copy(io.NewOffsetWriter(b, bt), io.NewSectionReader(a, at, stateSize)); err != nil {
		t.Fatal(err)
	}
}

// stick is a FAT medium with one file.
func stick(t *testing.T, name string, content []byte) string {
	t.Helper()
	p := filepath.Join(t.TempDir(), "stick")
	f, err := os.Create(p)
	if err != nil {
		t.Fatal(err)
	}
	v := fat32.Volume{Size: fat32.MinSize(512), Sector: 512, Label: "STICK", ID: 7, Files: []fat32.File{{Path: "/" + name, Content: content}}}
	if err := errors.Join(f.Truncate(v.Size), v.Write(f), f.Close()); err != nil {
		t.Fatal(err)
	}
	return p
}

// boot starts a machine on a disk and waits for one of its words. The power is
// cut as soon as it was said.
func (w *sealedWorld) boot(name, disk, tpm string, extra []qemu.ExtraDisk, words ...string) (said [][]string) {
	w.t.Helper()
	w.t.Run(name, func(t *testing.T) {
		begun := time.Now()
		o := qemu.Options{Disk: disk, UEFI: &qemu.UEFI{Bus: "virtio", Write: true, Extra: extra}}
		if tpm != "" {
			s, err := qemu.StartTPM(context.Background(), tpm)
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			}()
			o.UEFI.TPM = s.Socket
		}
		m := start(t, o)
		ctx, cancel := context.WithTimeout(context.Background(), sealLimit)
		defer cancel()
		for _, word := range words {
			_, groups, _, err := m.Console.Expect(ctx, 0, regexp.MustCompile(word))
			if err != nil {
				t.Fatal(err)
			}
			said = append(said, groups)
		}
		if err := m.Close(); err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%-34s %3.0f s  %s", name, time.Since(begun).Seconds(), said[0][0])
		t.Log(line)
		w.table = append(w.table, line)
	})
	if w.t.Failed() {
		w.t.FailNow() // each boot builds on the one before
	}
	return said
}

const (
	// What else may be said instead ends the wait, and the test.
	instead    = locked + `|agent ends.*|ZOS STOPPED.*|Kernel panic.*`
	locked     = `|STATE IS LOCKED.*`
	wordMade   = `the node's state was made" .*key=\S+ .*recovery=\S+` + instead
	wordOpen   = `the node's state is open" .*key=\S+ .*recovery=\S+` + instead
	wordLocked = `STATE IS LOCKED.*` + instead
	wordNode   = `msg=node .*id=(\S+)` + instead
)

// TestSealed is the life of one node's disk on real firmware with a software
// TPM: the first boot seals, the second unseals and is the same node; so does an
// image of the same maker; another maker's does not, nor does another machine,
// until an operator brings the recovery key.
func TestSealed(t *testing.T) {
	whole(t)
	for _, tool := range []string{"swtpm", "cryptsetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP measured boot: %v", err)
		}
	}
	operator, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	w := &sealedWorld{t: t, operator: operator}
	_, ours := keyFolder(t)
	_, theirs := keyFolder(t)
	x, y, foreign := w.build(ours, 1), w.build(ours, 2), w.build(theirs, 1)
	first, second := filepath.Join(t.TempDir(), "tpm"), filepath.Join(t.TempDir(), "tpm")

	want := func(said []string, parts ...string) {
		t.Helper()
		for _, p := range parts {
			if !strings.Contains(said[0], p) {
				t.Errorf("it says %q, want %s", said[0], p)
			}
		}
	}
	said := w.boot("first boot", x, first, nil, wordMade, wordNode)
	want(said[0], "key=sealed", "recovery=true")
	node := said[1][1]
	same := func(said []string) {
		t.Helper()
		if said[1] != node {
			t.Errorf("it is node %s now, was %s", said[1], node)
		}
	}
	said = w.boot("second boot", x, first, nil, wordOpen, wordNode)
	want(said[0], "key=sealed")
	same(said[1])
	carry(t, x, y)
	said = w.boot("an update of the same maker", y, first, nil, wordOpen, wordNode)
	want(said[0], "key=sealed")
	same(said[1])
	carry(t, x, foreign)
	said = w.boot("another maker's image", foreign, first, nil, wordLocked, `waiting for the recovery key`)
	want(said[0], "sealed for images of another maker", "docs/boot.md")

	key := recoveryKey(t, x, operator)
	medium := stick(t, state.RecoveryPath, []byte(key+"\n"))
	said = w.boot("another machine, recovery key", x, second, []qemu.ExtraDisk{{Bus: "nvme", File: medium}}, wordLocked, `the recovery key opened the state`, afterwards(wordOpen), afterwards(wordNode))
	want(said[0], "another TPM sealed this")
	want(said[2], "key=sealed")
	same(said[3])
	said = w.boot("the machine that it left", x, first, nil, wordLocked)
	want(said[0], "another TPM sealed this")
	said = w.boot("no TPM", x, "", nil, wordLocked)
	want(said[0], "no TPM")

	bare := w.build(ours, 3)
	said = w.boot("first boot without a TPM", bare, "", nil, wordMade, wordNode)
	want(said[0], "key=clear")
	node = said[1][1]
	said = w.boot("second boot without a TPM", bare, "", nil, wordOpen, `whoever has the disk can read it`, wordNode)
	same(said[2])
	t.Logf("measured boot, swtpm:\n%s", strings.Join(w.table, "\n"))
}

// afterwards is a word that comes after the state was locked.
func afterwards(word string) string { return strings.ReplaceAll(word, locked, "") }

// recoveryKey goes the operator's way: the header's token, age, and then
// cryptsetup says whether the key opens it.
func recoveryKey(t *testing.T, disk string, id age.Identity) string {
	t.Helper()
	f, at := kept(t, disk)
	header := filepath.Join(t.TempDir(), "partition")
	out, err := os.Create(header)
	if err != nil {
		t.Fatal(err)
	}
	_, err = io.Copy(out, io.NewSectionReader(f, at, stateSize))
	if err := errors.Join(err, out.Close()); err != nil {
		t.Fatal(err)
	}
	dump, err := exec.Command("cryptsetup", "luksDump", "--dump-json-metadata", header).Output()
	if err != nil {
		t.Fatal(err)
	}
	var meta struct {
		Tokens map[string]struct {
			Type  string
			Value struct{ Age string }
		}
	}
	if err := json.Unmarshal(dump, &meta); err != nil {
		t.Fatal(err)
	}
	for _, token := range meta.Tokens {
		if token.Type != "zos-recovery" {
			continue
		}
		r, err := age.Decrypt(armor.NewReader(strings.NewReader(token.Value.Age)), id)
		if err != nil {
			t.Fatal(err)
		}
		key, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command("cryptsetup", "open", "--test-passphrase", "--key-file=-", header)
		cmd.Stdin = bytes.NewReader(key)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("cryptsetup: %v: %s", err, out)
		}
		return string(key)
	}
	t.Fatalf("no recovery token: %s", dump)
	return ""
}
