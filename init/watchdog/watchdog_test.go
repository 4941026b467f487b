// SPDX-License-Identifier: Apache-2.0

package watchdog

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestHungry(t *testing.T) {
	for after, want := range map[time.Duration]bool{0: true, time.Minute: true, Patience - 1: true, Patience: false, time.Hour: false} {
		if got := Hungry(after, Patience); got != want {
			t.Errorf("%s after the last heartbeat: feed %v, want %v", after, got, want)
		}
	}
	if Timeout <= 2*Every {
		t.Error("one late feeding would reset the machine")
	}
}

func TestNone(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "watchdog")); !errors.Is(err, ErrNone) {
		t.Errorf("%v, want ErrNone", err)
	}
}

func TestFeed(t *testing.T) {
	// A plain file takes the bytes and refuses the ioctl: told, yet usable.
	path := filepath.Join(t.TempDir(), "watchdog")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d, err := Open(path)
	if err == nil || d == nil {
		t.Fatalf("%v, %v", d, err)
	}
	if err := d.Feed(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(path); err != nil || len(b) != 1 || b[0] == 'V' {
		t.Errorf("%q, %v: want one byte that is not the magic close", b, err)
	}
}
