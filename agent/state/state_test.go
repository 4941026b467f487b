// SPDX-License-Identifier: Apache-2.0

package state

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/luks"
)

// TestWhichDisk: a node that was started from a disk waits for it, so that a
// slow one is not taken for none; every other node goes on from memory.
func TestWhichDisk(t *testing.T) {
	appear := func(sys string) error {
		dir := filepath.Join(sys, "sda2")
		return errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "size"), []byte("131072"), 0o644), os.WriteFile(filepath.Join(dir, "uevent"), []byte("PARTNAME=zos state\n"), 0o644))
	}
	for name, c := range map[string]struct {
		before, after bool // the disk is there before, or only after drivers are loaded
		booted        bool // from a partition
		asked, found  bool
	}{
		"at once":      {true, false, true, false, true},
		"late":         {false, true, true, true, true},
		"none":         {false, false, false, true, false},
		"not ours yet": {false, true, false, true, false},
	} {
		sys, asked := t.TempDir(), false
		if c.before {
			if err := appear(sys); err != nil {
				t.Fatal(err)
			}
		}
		cfg := Config{Sys: sys, Dev: "/dev", Log: slog.New(slog.DiscardHandler), Booted: func(context.Context) (bool, error) {
			asked = true
			if c.after {
				return c.booted, appear(sys)
			}
			return c.booted, nil
		}}
		p, err := cfg.partition(context.Background())
		if err != nil || (p != nil) != c.found || asked != c.asked {
			t.Errorf("%s: %v, %v, asked %v", name, p, err, asked)
		}
	}
}

func TestInMemory(t *testing.T) {
	run := t.TempDir()
	c := Config{Sys: filepath.Join(run, "none"), RunDir: run, Log: slog.New(slog.DiscardHandler), Booted: func(context.Context) (bool, error) { return false, nil }}
	s, err := Open(context.Background(), c)
	if err != nil || s.Kind != Memory || s.Dir != filepath.Join(run, "state") || len(s.Lacks) != 1 {
		t.Fatalf("%+v, %v", s, err)
	}
	if info, err := os.Stat(s.Dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("%v, %v", info, err)
	}
}

// TestNothingIsWrittenOver: what is no volume of ours, and is not empty, stays.
func TestNothingIsWrittenOver(t *testing.T) {
	sys, dev := t.TempDir(), t.TempDir()
	dir := filepath.Join(sys, "sda2")
	precious := append([]byte("precious"), make([]byte, luks.DataOffset)...)
	if err := errors.Join(os.MkdirAll(dir, 0o755), os.WriteFile(filepath.Join(dir, "size"), []byte("131072"), 0o644),
		os.WriteFile(filepath.Join(dir, "uevent"), []byte("PARTNAME=zos state\n"), 0o644), os.WriteFile(filepath.Join(dev, "sda2"), precious, 0o600)); err != nil {
		t.Fatal(err)
	}
	c := Config{Sys: sys, Dev: dev, RunDir: t.TempDir(), TPM: filepath.Join(dev, "no-tpm"), Log: slog.New(slog.DiscardHandler)}
	if _, err := Open(context.Background(), c); !errors.Is(err, luks.ErrHeader) {
		t.Errorf("%v", err)
	}
	if b, err := os.ReadFile(filepath.Join(dev, "sda2")); err != nil || string(b) != string(precious) {
		t.Errorf("it was changed, %v", err)
	}
}

// TestStick: a locked state waits; a wrong key, and one that is none, do not end
// the wait, the right one does.
func TestStick(t *testing.T) {
	ours := maker(t)
	id, to := operator(t)
	g, off := on(t, t.TempDir(), "X", ours)
	f, key, _ := made(t, g, to)
	off()
	text := recoveryText(t, f, id)
	shown := []string{"", "no key", "aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa-aaaa", text + "\n"}
	var asked int
	c := Config{every: time.Millisecond, Log: slog.New(slog.DiscardHandler), Medium: func(path string) ([]byte, string, error) {
		if path != RecoveryPath {
			t.Errorf("asks for %s", path)
		}
		content := shown[min(asked, len(shown)-1)]
		if asked++; content == "" {
			return nil, "", os.ErrNotExist
		}
		return []byte(content), "stick", nil
	}}
	var heard []error
	c.Locked = func(why error) { heard = append(heard, why) }
	none := Guard{Why: errors.New("no TPM")}
	_, _, locked := open(t, none, f)
	got, kind, err := c.locked(context.Background(), f, true, none, locked)
	if err != nil || kind != Recovery || string(got) != string(key) || asked != len(shown) {
		t.Errorf("%s after %d, %v", kind, asked, err)
	}
	if len(heard) != 1 || !errors.Is(heard[0], none.Why) {
		t.Errorf("why it is locked: %v", heard)
	}
}

// TestMaker: a state that is sealed says for whose images, also to a later agent
// of the same boot; one in clear is for all.
func TestMaker(t *testing.T) {
	g, off := on(t, t.TempDir(), "X", maker(t))
	defer off()
	for kind, c := range map[Kind]struct {
		g     Guard
		maker string
	}{Sealed: {g, g.Signed.Fingerprint}, Clear: {Guard{Why: errors.New("no TPM")}, ""}} {
		f, _, _ := made(t, c.g, nil)
		h, err := luks.Read(f)
		if err != nil {
			t.Fatal(err)
		}
		cfg := Config{RunDir: t.TempDir(), Log: slog.New(slog.DiscardHandler)}
		if err := os.Mkdir(filepath.Join(cfg.RunDir, "state"), 0o700); err != nil {
			t.Fatal(err)
		}
		s, err := cfg.opened(kind, h, "open", c.g)
		if err != nil || s.Kind != kind || s.Maker != c.maker {
			t.Errorf("%s: %+v, %v, want maker %q", kind, s, err, c.maker)
		}
		if s, err := cfg.again(); err != nil || s.Kind != kind || s.Maker != c.maker {
			t.Errorf("%s, a later agent: %+v, %v", kind, s, err)
		}
	}
}
