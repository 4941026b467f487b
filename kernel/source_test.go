// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/kernel/debian"
)

// TestLockNoLongerHolds: the archive does not have the locked version any
// more. The build goes on with another one, says so loudly, and writes down
// which.
func TestLockNoLongerHolds(t *testing.T) {
	dir := t.TempDir()
	lock, work := filepath.Join(dir, "lock"), filepath.Join(dir, "build", "lock")
	gone := debian.Lock{"systemd-boot-efi": {Name: "systemd-boot-efi", Version: "1.2.3-gone", SHA256: strings.Repeat("0", 64), Size: 1}}
	if err := gone.Write(lock, Suite); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(lock)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	open := func() *Source {
		s, err := Open(Options{Cache: "../build/cache/debian", Lock: lock, WorkLock: work, Log: slog.New(slog.NewTextHandler(&said, nil))})
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	efi, err := open().EFI(context.Background())
	if err != nil {
		t.Skipf("SKIP lock that no longer holds: the archive cannot be asked: %v", err)
	}
	p := efi.Package
	if len(efi.Stub) == 0 || len(efi.Loader) == 0 || p.Version == "1.2.3-gone" {
		t.Fatalf("%d and %d bytes of %+v", len(efi.Stub), len(efi.Loader), p)
	}
	if !strings.Contains(said.String(), "THE LOCK NO LONGER HOLDS") || !strings.Contains(said.String(), "1.2.3-gone") {
		t.Errorf("it was not said: %s", said.String())
	}
	got, err := debian.ReadLock(work)
	if err != nil || got["systemd-boot-efi"] != p {
		t.Errorf("work lock: %v, %v", got, err)
	}
	if after, err := os.ReadFile(lock); err != nil || !bytes.Equal(after, before) {
		t.Errorf("the committed lock was changed: %v", err)
	}
	// The next build finds the same package again by the work lock.
	if again, err := open().EFI(context.Background()); err != nil || again.Package != p {
		t.Errorf("second build: %+v, %v", again, err)
	}
}

func TestDamagedLockIsRefused(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	if err := os.WriteFile(lock, []byte("half a line\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(Options{Cache: t.TempDir(), Lock: lock, Log: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "line 1") {
		t.Errorf("%v", err)
	}
}

// TestRelock keeps what the old lock has for others, and refuses to lose it.
func TestRelock(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	line := "no-such-package no-such-package 1 " + strings.Repeat("0", 64) + " 1\n"
	if err := os.WriteFile(lock, []byte(line), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Relock(context.Background(), "../build/cache/debian", lock, nil, nil, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "no-such-package") {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(lock); err != nil || string(b) != line {
		t.Errorf("a failure changed the lock: %q, %v", b, err)
	}
}
