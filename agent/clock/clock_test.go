// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
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

func TestStart(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	floor := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	at := func(year int) time.Time { return time.Date(year, 7, 1, 0, 0, 0, 0, time.UTC) }
	for name, c := range map[string]struct{ now, rtc, want time.Time }{
		"no RTC, the kernel knows nothing": {now: time.Unix(3, 0), want: floor},
		"no RTC, the kernel knows":         {now: at(2027)},
		"an RTC that works":                {now: time.Unix(3, 0), rtc: at(2027), want: at(2027)},
		"an RTC in 1970":                   {now: time.Unix(3, 0), rtc: time.Unix(9, 0), want: floor},
		"an RTC in 2100":                   {now: time.Unix(3, 0), rtc: at(2100), want: floor},
		"a kernel that believed 2100":      {now: at(2100), rtc: at(2100), want: floor},
	} {
		rtc := File("rtc", filepath.Join(t.TempDir(), "rtc"))
		if !c.rtc.IsZero() {
			rtc = Source{"rtc", func() (time.Time, error) { return c.rtc, nil }}
		}
		var set time.Time
		if err := Start(log, c.now, rtc, floor, "image", func(x time.Time) error { set = x; return nil }); err != nil || !set.Equal(c.want) {
			t.Errorf("%s: set to %v, want %v; %v", name, set, c.want, err)
		}
	}
}

func TestBack(t *testing.T) {
	block := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		now, floor time.Duration // from the block
		to         time.Duration
		back       bool
	}{
		"right":                      {time.Second, -time.Hour, 0, false},
		"behind: others see to that": {-20 * time.Hour, -30 * time.Hour, 0, false},
		"an hour ahead, as validators may be off": {time.Hour, -time.Hour, 0, false},
		"a day ahead":                 {24 * time.Hour, -time.Hour, 0, true},
		"37 years ahead":              {37 * 365 * 24 * time.Hour, -time.Hour, 0, true},
		"a floor after the block":     {24 * time.Hour, 2 * time.Hour, 2 * time.Hour, true},
		"a floor that the clock fits": {24 * time.Hour, 24 * time.Hour, 0, false},
	} {
		to, back := Back(block.Add(c.now), block, block.Add(c.floor))
		if back != c.back || back && !to.Equal(block.Add(c.to)) {
			t.Errorf("%s: %v, %v", name, back, to)
		}
	}
}

func TestKernelDay(t *testing.T) {
	got, err := kernelDay("#1 SMP PREEMPT_DYNAMIC Debian 6.12.118-1 (2026-11-20)")
	if err != nil || got.Format(time.DateOnly) != "2026-11-20" {
		t.Errorf("%v, %v", got, err)
	}
	for _, v := range []string{"", "#1 SMP Debian 6.12 (soon)", "#5 SMP Tue Nov 25 10:00:00 UTC 2026", "2026-11-20"} {
		if got, err := kernelDay(v); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%q: %v, %v", v, got, err)
		}
	}
}

func TestRTCTime(t *testing.T) {
	east := time.FixedZone("east", 2*3600)
	got := rtcTime(time.Date(2027, time.January, 1, 1, 2, 3, 4, east))
	if want := (unix.RTCTime{Sec: 3, Min: 2, Hour: 23, Mday: 31, Mon: 11, Year: 126}); *got != want {
		t.Errorf("%+v, want %+v", *got, want)
	}
}
