// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/crypto/ssh"

	"github.com/zos-node/zos/guest/wire"
)

// OpenSSH's own implementation reads what is written by hand.
func TestAuthorizedKey(t *testing.T) {
	public, _, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	parsed, _, _, rest, err := ssh.ParseAuthorizedKey([]byte(authorizedKey(public)))
	if err != nil || len(rest) != 0 {
		t.Fatal(err, rest)
	}
	got, ok := parsed.(ssh.CryptoPublicKey).CryptoPublicKey().(ed25519.PublicKey)
	if !ok || !bytes.Equal(got, public) {
		t.Errorf("another key: %v", parsed)
	}
}

func TestCheck(t *testing.T) {
	good := func() wire.Config {
		return wire.Config{Process: wire.Process{Args: []string{"/app"}, StopSignal: "SIGTERM", Capabilities: []string{"CAP_CHOWN"}},
			Interfaces: []wire.Interface{{MAC: "52:54:00:00:00:01", Address: "10.1.0.5/24", MTU: 1500}},
			Check:      wire.Check{Kind: "tcp", Port: 80, IntervalMs: 1, TimeoutMs: 1, Failures: 1}}
	}
	w := &workload{guest: newGuest(), config: good()}
	if err := w.check(); err != nil || w.config.Process.Cwd != "/" || w.stopSignal != syscall.SIGTERM || len(w.caps) != 1 {
		t.Errorf("%+v, %v", w, err)
	}
	for want, change := range map[string]func(*wire.Config){
		"no program":   func(c *wire.Config) { c.Process.Args = nil },
		"capability":   func(c *wire.Config) { c.Process.Capabilities = []string{"ALL"} },
		"signal":       func(c *wire.Config) { c.Process.StopSignal = "TERM" },
		"interface":    func(c *wire.Config) { c.Interfaces[0].MAC = "" },
		"unknown kind": func(c *wire.Config) { c.Check.Kind = "" },
		"not complete": func(c *wire.Config) { c.Check.IntervalMs = 0 },
	} {
		w := &workload{guest: newGuest(), config: good()}
		change(&w.config)
		if err := w.check(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

// The spec's files win over the generated ones.
func TestFiles(t *testing.T) {
	w := &workload{guest: newGuest(), config: wire.Config{Machine: "web", Hosts: map[string]string{"db": "10.1.0.4"},
		Files: []wire.File{{Path: "/etc/resolv.conf", Content: []byte("mine")}}}}
	got := map[string]string{}
	for _, f := range w.files() {
		if _, twice := got[f.Path]; twice {
			t.Errorf("%s twice", f.Path)
		}
		got[f.Path] = string(f.Content)
	}
	if len(got) != 3 || got["/etc/resolv.conf"] != "mine" || got["/etc/hostname"] != "web\n" || !strings.Contains(got["/etc/hosts"], "10.1.0.4\tdb\n") {
		t.Errorf("%q", got)
	}
	if len(w.config.Files) != 1 {
		t.Error("the configuration was changed")
	}
}

func TestGuarded(t *testing.T) {
	if err := guarded(func() error { panic("boom") }); err == nil || !strings.Contains(err.Error(), "boom") {
		t.Errorf("%v", err)
	}
	want := errors.New("x")
	if err := guarded(func() error { return want }); !errors.Is(err, want) {
		t.Errorf("%v", err)
	}
}

// A wish to end, a start, and a failure may come from anywhere and more than
// once.
func TestOnce(t *testing.T) {
	g := newGuest()
	for range 3 {
		g.Start()
		g.Stop("test")
		g.fail(failure{"x", errors.New("y")})
	}
	<-g.start
	<-g.stop
	if f := <-g.failed; f.phase != "x" || len(g.failed) != 0 {
		t.Errorf("%+v", f)
	}
}

func TestDigest(t *testing.T) {
	name := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(name, []byte("abc"), 0o600); err != nil {
		t.Fatal(err)
	}
	if sum, err := digest(name); err != nil || sum != "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" {
		t.Errorf("%s, %v", sum, err)
	}
	if _, err := digest(name + "x"); err == nil {
		t.Error("a missing file has a digest")
	}
}

// What the report says of the files is what the files are, not what was asked
// for.
func TestDigestsReadBack(t *testing.T) {
	dir := t.TempDir()
	sum := func(text string) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(text))) }
	var files []wire.File
	want := map[string]string{}
	for name, is := range map[string]string{"kept": "as configured", "changed": "somebody else's", "emptied": ""} {
		at := filepath.Join(dir, name)
		files = append(files, wire.File{Path: at, Content: []byte("as configured")})
		if err := os.WriteFile(at, []byte(is), 0o600); err != nil {
			t.Fatal(err)
		}
		want[at] = sum(is)
	}
	if got, err := digests(files); err != nil || !maps.Equal(got, want) {
		t.Errorf("%v, %v; want %v", got, err, want)
	}
	if err := os.Remove(files[0].Path); err != nil {
		t.Fatal(err)
	}
	if got, err := digests(files); !errors.Is(err, fs.ErrNotExist) || got != nil {
		t.Errorf("a file is gone: %v, %v", got, err)
	}
	if got, err := digests(nil); err != nil || got == nil {
		t.Errorf("no files: %v, %v", got, err)
	}
}

// Both switches are thrown; a kernel without one needs none, and one that
// cannot be thrown is an error.
func TestCloseKernel(t *testing.T) {
	names := []string{"modules_disabled", "kexec_load_disabled"}
	dir := t.TempDir()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("0"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := closeKernel(dir); err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		if b, err := os.ReadFile(filepath.Join(dir, name)); err != nil || string(b) != "1" {
			t.Errorf("%s is %q, %v", name, b, err)
		}
	}
	if err := closeKernel(filepath.Join(dir, "none")); err != nil {
		t.Errorf("a kernel that has no switch: %v", err)
	}
	for _, name := range names {
		dir := t.TempDir()
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil { // not even root writes to a folder
			t.Fatal(err)
		}
		if err := closeKernel(dir); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s cannot be written: %v", name, err)
		}
	}
}

func TestEntropyAndClockRefuse(t *testing.T) {
	if err := addEntropy(make([]byte, 31)); err == nil {
		t.Error("31 bytes were accepted")
	}
	if err := setClock(0); err == nil {
		t.Error("no time was accepted")
	}
}
