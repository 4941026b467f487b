// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestFloorIsTheLatestOfWhatCanBeRead(t *testing.T) {
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	release := filepath.Join(dir, "os-release")
	if err := os.WriteFile(release, []byte("ID=zos\nZOS_BUILD_TIME=1000\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	saved := filepath.Join(dir, "clock")
	if err := Save(saved, time.Unix(3000, 5)); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "rtc")
	if err := os.WriteFile(broken, []byte("yesterday"), 0o600); err != nil {
		t.Fatal(err)
	}
	floor, from := Floor(log, Release(release), File("saved", saved), File("rtc", broken), File("none", filepath.Join(dir, "none")))
	if floor.Unix() != 3000 || from != "saved" {
		t.Fatalf("floor %v from %s", floor, from)
	}
}

func TestForwardOnly(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	for _, c := range []struct {
		now, floor int64
		set        bool
	}{{1000, 2000, true}, {1999, 2000, false}, {2000, 2000, false}, {3000, 2000, false}} {
		var got time.Time
		err := Forward(log, time.Unix(c.now, 0), time.Unix(c.floor, 0), "test", func(x time.Time) error { got = x; return nil })
		if err != nil || got.IsZero() == c.set || (c.set && got.Unix() != c.floor) {
			t.Errorf("%+v: set %v, %v", c, got, err)
		}
	}
}
