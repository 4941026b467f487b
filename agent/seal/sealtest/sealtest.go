// SPDX-License-Identifier: Apache-2.0

// Package sealtest starts software TPMs (swtpm) for tests, measures into them
// what firmware and systemd's stub would, and signs images.
package sealtest

import (
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"
	"github.com/google/go-tpm/tpm2/transport/linuxudstpm"

	"github.com/zos-node/zos/agent/pcrsig"
)

// Boot is what was measured before the operating system runs.
type Boot struct {
	Image    string // into register 11; "" for nothing
	Firmware bool   // into register 0
}

// Register is what Boot leaves in register 11.
func (b Boot) Register() pcrsig.Register {
	var r pcrsig.Register
	if b.Image != "" {
		d := sha256.Sum256([]byte(b.Image))
		r = sha256.Sum256(append(r[:], d[:]...))
	}
	return r
}

// Sign is what an image of this measurement carries.
func (b Boot) Sign(t *testing.T, key *rsa.PrivateKey) *pcrsig.Signed {
	t.Helper()
	sig, err1 := pcrsig.Sign(b.Register(), key)
	public, err2 := pcrsig.PublicKey(key)
	if err := errors.Join(err1, err2); err != nil {
		t.Fatal(err)
	}
	s, err := pcrsig.Decode(sig, public)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// PowerOn starts swtpm on the state in a folder, as a machine that boots does,
// until off is called or the test ends.
func PowerOn(t *testing.T, state string, boot Boot) (tpm transport.TPM, off func()) {
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
	var open transport.TPMCloser
	ended := false
	off = func() {
		if ended {
			return
		}
		ended = true
		// swtpm ends with its only connection; what is left of it is ended.
		if open != nil {
			_ = open.Close()
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
	t.Cleanup(off)
	// The socket's file is there before swtpm listens, so that only an answer
	// says that it does.
	for limit := time.Now().Add(2 * time.Minute); open == nil; time.Sleep(20 * time.Millisecond) {
		tried, err := linuxudstpm.Open(socket)
		if err == nil {
			_, err = tpm2.GetRandom{BytesRequested: 1}.Execute(tried)
		}
		if err == nil {
			open = tried
		} else if time.Now().After(limit) {
			t.Fatal(err)
		}
	}
	if boot.Firmware {
		extend(t, open, 0, "firmware")
	}
	if boot.Image != "" {
		extend(t, open, pcrsig.PCR, boot.Image)
	}
	return open, off
}

func extend(t *testing.T, tpm transport.TPM, register tpm2.TPMHandle, what string) {
	t.Helper()
	d := sha256.Sum256([]byte(what))
	if _, err := (tpm2.PCRExtend{
		PCRHandle: tpm2.AuthHandle{Handle: register, Auth: tpm2.PasswordAuth(nil)},
		Digests:   tpm2.TPMLDigestValues{Digests: []tpm2.TPMTHA{{HashAlg: tpm2.TPMAlgSHA256, Digest: d[:]}}},
	}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
}

// Clear is what "clear the TPM" in a firmware's menu does.
func Clear(t *testing.T, tpm transport.TPM) {
	t.Helper()
	if _, err := (tpm2.Clear{AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHLockout, Auth: tpm2.PasswordAuth(nil)}}).Execute(tpm); err != nil {
		t.Fatal(err)
	}
}
