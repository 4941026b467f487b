// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/image/imagetest"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/zimage"
)

// TestSoftware: a release from UKIs, a rollout, and what status shows of them.
func TestSoftware(t *testing.T) {
	l := ledgertest.New(t)
	url := l.Serve()
	root, key, stranger := file(t, "root.json", l.RootEnv), file(t, "release", l.ReleaseKey), keyFile(t, t.TempDir(), "stranger")
	uki := func(version, board string) string {
		return file(t, "node.uki", imagetest.UKI(version, board, []byte("kernel of "+version)))
	}
	a, b := uki("1.4.0", "pc-x86_64"), uki("1.4.0", "vm-x86_64")
	on := func(args ...string) []string { return append(args, "--ledger", url, "--root", root) }
	store := filepath.Join(t.TempDir(), "store")

	_, errs := zos(t, exitRefused, on("release", b, uki("1.4.1", "pc-x86_64"), "--key", key)...)
	contains(t, errs, "a release is one version")
	_, errs = zos(t, exitRefused, on("release", b, uki("1.4.0", "vm-x86_64"), "--key", key)...)
	contains(t, errs, "another UKI for board vm-x86_64")
	_, errs = zos(t, exitRefused, on("release", uki("dev", "pc-x86_64"), "--key", key)...)
	contains(t, errs, "dev", "zos node build --version")
	_, errs = zos(t, exitRefused, on("release", key, "--key", key)...)
	contains(t, errs, "read UKI", "want node.uki of zos node build")
	zos(t, exitNotFound, on("release", a+"x", "--key", key)...)
	_, errs = zos(t, exitRefused, on("release", a, "--key", stranger)...)
	contains(t, errs, "release")
	// Not for others to sign either: it would count for nothing.
	nothing := filepath.Join(t.TempDir(), "release.envelope")
	_, errs = zos(t, exitRefused, "release", a, "--root", root, "--key", stranger, "-o", nothing)
	contains(t, errs, "is in none of the roles that sign releases in root version 1 (release): nothing was written")
	if _, err := os.Stat(nothing); err == nil {
		t.Error("it was written")
	}
	_, errs = zos(t, exitNotFound, on("rollout", "1.4.0", "--key", key)...)
	contains(t, errs, "zos release makes one")

	out, _ := zos(t, exitOK, on("release", b, a, "--key", key, "--store", store, "--notes", "new kernel")...)
	contains(t, out, "release 1.4.0 is entry")
	got := l.State().Releases()
	if len(got) != 1 || len(got[0].Release.Images) != 2 || got[0].Release.Images[0].Board != "pc-x86_64" {
		t.Fatalf("%+v", got)
	}
	if len(got[0].Chunks) != 2 {
		t.Errorf("bound lists: %v", got[0].Chunks)
	}
	for i, img := range got[0].Release.Images {
		b, err := os.ReadFile(filepath.Join(store, "blobs", strings.TrimPrefix(got[0].Chunks[i], "sha256:")))
		if err != nil {
			t.Fatalf("the store has no list for %s: %v", img.Board, err)
		}
		if l, err := zimage.DecodeChunkList(b); err != nil || l.Blob != img.Digest || l.Size != img.Size {
			t.Errorf("the list for %s is %+v: %v", img.Board, l, err)
		}
		if _, err := os.Stat(filepath.Join(store, "blobs", strings.TrimPrefix(img.Digest, "sha256:"))); err != nil {
			t.Errorf("the store has no UKI for %s: %v", img.Board, err)
		}
	}
	zos(t, exitOK, on("release", uki("1.3.0", "pc-x86_64"), "--key", key, "--whole")...)
	if r := l.State().Releases()[1]; r.Version != "1.3.0" || r.Chunks != nil {
		t.Errorf("a release without lists: %+v", r)
	}
	// Flags are looked at before anybody is asked.
	for words, says := range map[string]string{
		"1.4.0 --waves 50,20":                "--waves: are [50 20]",
		"1.4.0 --waves 50,40,100":            "--waves: is 40, want more than the wave before it",
		"1.4.0 --pace 0s":                    "--pace 0s: want the time between two waves",
		"1.4.0 --pace -1h --waves 100":       "--pace -1h0m0s: want the time between two waves",
		"1.4.0 --floor foo":                  `--floor: is "foo", want a version`,
		"1.4.0 --floor 1.5.0":                "--floor: is 1.5.0, which is above the version",
		"1.4.0 --floor 1.3.0 --label site=a": "--floor: is 1.3.0, but only a rollout to all nodes",
		"1.4.0 --max-failed 0":               "--max-failed: is 0, want 1 or more",
		"newest":                             `the version to roll out is "newest"`,
	} {
		_, errs = zos(t, exitUsage, append(append([]string{"rollout"}, strings.Fields(words)...), "--key", key, "--root", root, "--ledger", "http://127.0.0.1:9")...)
		contains(t, errs, says)
		if strings.Contains(errs, "payload") {
			t.Errorf("%s: %s", words, errs)
		}
	}
	// For several signers: written, not submitted.
	envelope := filepath.Join(t.TempDir(), "rollout.envelope")
	zos(t, exitOK, on("rollout", "1.4.0", "--key", key, "--floor", "1.4.0", "-o", envelope)...)
	if len(l.State().Rollouts()) != 0 {
		t.Fatal("it was submitted")
	}
	zos(t, exitOK, on("submit", envelope)...)
	n := l.Join("edge-1", 1024)
	l.Must(n.Entry(ledger.TypeUpdate, ledger.Update{Rollout: l.State().Rollouts()[0].ID, Version: "1.4.0", Running: "1.3.9", Result: ledger.UpdateRolledBack, Reason: "no\x1b[31m heartbeat", Acted: l.Acted()}))

	out, _ = zos(t, exitOK, on("status")...)
	contains(t, out, "released 1.4.0, 1.3.0, nothing below 1.4.0", "rollout of 1.4.0", "1 failed, HALTED", "node edge-1  rolled-back  runs 1.3.9")
	if strings.Contains(out, "\x1b") {
		t.Error("a node paints on the terminal")
	}
	out, _ = zos(t, exitOK, on("status", "--json")...)
	var st struct{ Software softwareStatus }
	if err := json.Unmarshal([]byte(out), &st); err != nil {
		t.Fatal(err)
	}
	if s := st.Software; s.Floor != "1.4.0" || len(s.Releases) != 2 || len(s.Rollouts) != 1 || !s.Rollouts[0].Halted || s.Rollouts[0].Nodes[0].Name != "edge-1" {
		t.Errorf("%+v", s)
	}
}
