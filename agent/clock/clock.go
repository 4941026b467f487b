// SPDX-License-Identifier: Apache-2.0

// Package clock gives the node a time that is never before what it knows to
// have passed. A wrong clock must not stop a boot: nobody waits for time
// servers, there is a floor, the latest time that anybody trustworthy has named
// (the image's build, what the ledger said last, the ledger). The real-time
// clock is nobody trustworthy: it may say 1970 or 2100, so it is a guess that
// must fit the floor (Sane).
//
// Time servers (Sync) set the clock once at boot, in either direction but never
// below the floor, and slew it afterwards.
package clock

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"runtime/debug"
	"strconv"
	"strings"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

// Clock is the time as the agent's parts see it, so that tests can own it.
type Clock interface {
	Now() time.Time
	// After delivers once, when d has passed.
	After(d time.Duration) <-chan time.Time
}

// System is the machine's own clock.
type System struct{}

// Now is time.Now.
func (System) Now() time.Time { return time.Now() }

// After is time.After.
func (System) After(d time.Duration) <-chan time.Time { return time.After(d) }

const (
	// BuildKey names the image's build time (Unix seconds) in os-release.
	BuildKey = "ZOS_BUILD_TIME"
	// RTCPath is where the kernel shows the real-time clock.
	RTCPath = "/sys/class/rtc/rtc0/since_epoch"
)

// Source is one thing that knows a time which has passed.
type Source struct {
	Name string
	Read func() (time.Time, error)
}

// File reads a file that holds Unix seconds.
func File(name, path string) Source {
	return Source{Name: name, Read: func() (time.Time, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, err
		}
		return parse(strings.TrimSpace(string(b)))
	}}
}

// Release reads the build time from an os-release file.
func Release(path string) Source {
	return Source{Name: "image", Read: func() (time.Time, error) {
		b, err := os.ReadFile(path)
		if err != nil {
			return time.Time{}, err
		}
		for _, line := range strings.Split(string(b), "\n") {
			if v, ok := strings.CutPrefix(line, BuildKey+"="); ok {
				return parse(strings.Trim(v, `"`))
			}
		}
		return time.Time{}, fmt.Errorf("%s has no %s: %w", path, BuildKey, fs.ErrNotExist)
	}}
}

// Program is the time of the commit that this program was built from, where
// the build says so.
func Program() Source {
	return Source{Name: "program", Read: func() (time.Time, error) {
		info, ok := debug.ReadBuildInfo()
		if ok {
			for _, s := range info.Settings {
				if s.Key == "vcs.time" {
					return time.Parse(time.RFC3339, s.Value)
				}
			}
		}
		return time.Time{}, fmt.Errorf("no time in the build: %w", fs.ErrNotExist)
	}}
}

// Kernel is the day on which Debian finished the kernel that runs: it stands at
// the end of its version ("… Debian 6.12.118-1 (2026-11-20)"). An image that is
// built the same everywhere has no other date in it.
func Kernel() Source {
	return Source{Name: "kernel", Read: func() (time.Time, error) {
		var u unix.Utsname
		if err := unix.Uname(&u); err != nil {
			return time.Time{}, fmt.Errorf("uname: %w", err)
		}
		return kernelDay(unix.ByteSliceToString(u.Version[:]))
	}}
}

func kernelDay(version string) (time.Time, error) {
	if day, ok := strings.CutSuffix(version, ")"); ok {
		if t, err := time.Parse(time.DateOnly, day[strings.LastIndexByte(day, '(')+1:]); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("no day in the kernel's version %q: %w", version, fs.ErrNotExist)
}

func parse(s string) (time.Time, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil {
		return time.Time{}, fmt.Errorf("want Unix seconds: %w", err)
	}
	return time.Unix(n, 0), nil
}

// Setter sets the system's clock.
type Setter func(time.Time) error

// Set is the Setter of the real machine.
func Set(t time.Time) error {
	ts := unix.NsecToTimespec(t.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// rtcDevice is the real-time clock that the next start reads.
const rtcDevice = "/dev/rtc0"

// SetRTC sets the real-time clock, so that the next start does not believe what
// it showed. A machine without one is fine.
func SetRTC(t time.Time) error {
	f, err := os.Open(rtcDevice)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("real-time clock: %w", err)
	}
	if err := errors.Join(unix.IoctlSetRTCTime(int(f.Fd()), rtcTime(t)), f.Close()); err != nil {
		return fmt.Errorf("real-time clock: %w", err)
	}
	return nil
}

// rtcTime is a time in UTC as the device takes it: months from 0, years from
// 1900.
func rtcTime(t time.Time) *unix.RTCTime {
	t = t.UTC()
	return &unix.RTCTime{Sec: int32(t.Second()), Min: int32(t.Minute()), Hour: int32(t.Hour()), Mday: int32(t.Day()), Mon: int32(t.Month()) - 1, Year: int32(t.Year()) - 1900}
}

// Floor is the latest time of all sources that could be read. A source that
// is not there is normal; one that is there and broken is logged.
func Floor(log *slog.Logger, sources ...Source) (floor time.Time, from string) {
	for _, s := range sources {
		t, err := s.Read()
		if err != nil {
			if !errors.Is(err, fs.ErrNotExist) {
				log.Warn("clock source", "source", s.Name, "err", err)
			}
			continue
		}
		if t.After(floor) {
			floor, from = t, s.Name
		}
	}
	return floor, from
}

// slack is how far the clock may be behind without being set: no two clocks
// agree to the millisecond.
const slack = time.Second

// Forward sets the clock to floor when now is before it, and says so.
func Forward(log *slog.Logger, now, floor time.Time, from string, set Setter) error {
	if floor.Sub(now) <= slack {
		return nil
	}
	if err := set(floor); err != nil {
		return err
	}
	log.Info("clock set forward", "from", now.UTC().Format(time.RFC3339), "to", floor.UTC().Format(time.RFC3339), "source", from)
	return nil
}

// Back says to what a clock has to be set back that shows more than an hour
// after latest, which is what the time can be at most: the time of a block that
// more than two thirds of the validators signed and that holds an entry which
// this node made in this boot, and what has passed since it was sent. A ledger
// that is played back cannot hold such an entry. It never goes below the floor.
func Back(now, latest, floor time.Time) (to time.Time, back bool) {
	to = latest
	if to.Before(floor) {
		to = floor
	}
	return to, now.Sub(to) > ledgerSpread
}

// Start sets the clock as a boot should: to what it shows or the real-time
// clock says, the later, where that fits the floor; else to the floor.
func Start(log *slog.Logger, now time.Time, rtc Source, floor time.Time, from string, set Setter) error {
	guess, source := now, "running clock"
	switch t, err := rtc.Read(); {
	case err == nil && t.After(guess):
		guess, source = t, rtc.Name
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		log.Warn("clock source", "source", rtc.Name, "err", err)
	}
	start := Sane(guess, floor)
	if !start.Equal(guess) {
		log.Warn("the clock cannot be right", "source", source, "shows", stamp(guess), "floor", stamp(floor))
		source = from
	}
	if start.Sub(now).Abs() <= slack {
		return nil
	}
	if err := set(start); err != nil {
		return err
	}
	log.Info("clock set", "from", stamp(now), "to", stamp(start), "source", source)
	return nil
}

// Save notes a time for the next agent's floor.
func Save(path string, t time.Time) error {
	if err := renameio.WriteFile(path, []byte(strconv.FormatInt(t.Unix(), 10)+"\n"), 0o600); err != nil {
		return fmt.Errorf("save clock: %w", err)
	}
	return nil
}
