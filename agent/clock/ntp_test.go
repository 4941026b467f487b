// SPDX-License-Identifier: Apache-2.0

package clock

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestJudge(t *testing.T) {
	const year = 365 * 24 * time.Hour
	floor := time.Unix(1_700_000_000, 0)
	for name, c := range map[string]struct {
		now     time.Time
		offsets []time.Duration
		ledger  time.Time
		want    time.Duration
		err     string
	}{
		"nobody":                {now: floor, err: "no time server"},
		"one":                   {now: floor, offsets: []time.Duration{time.Hour}, want: time.Hour},
		"back, above the floor": {now: floor.Add(year), offsets: []time.Duration{-time.Hour}, want: -time.Hour},
		"below the floor":       {now: floor, offsets: []time.Duration{-time.Minute}, err: "has passed"},
		"far in the future":     {now: floor, offsets: []time.Duration{16 * year}, err: "more than 15 years"},
		"two agree":             {now: floor, offsets: []time.Duration{time.Hour, time.Hour + 100*time.Millisecond}, want: time.Hour + 100*time.Millisecond},
		"two disagree":          {now: floor, offsets: []time.Duration{time.Hour, 2 * time.Hour}, err: "disagree by 1h0m0s"},
		"one of three lies":     {now: floor, offsets: []time.Duration{year, time.Hour, time.Hour + time.Millisecond}, want: time.Hour + time.Millisecond},
		"all disagree":          {now: floor, offsets: []time.Duration{1 * time.Hour, 2 * time.Hour, 3 * time.Hour}, err: "disagree"},
		"the ledger agrees":     {now: floor, offsets: []time.Duration{time.Hour}, ledger: floor.Add(2 * time.Hour), want: time.Hour},
		"ahead of the ledger":   {now: floor, offsets: []time.Duration{4 * time.Hour}, ledger: floor.Add(2 * time.Hour), err: "the ledger's blocks"},
		"behind the ledger":     {now: floor, offsets: []time.Duration{time.Hour}, ledger: floor.Add(3 * time.Hour), err: "the ledger's blocks"},
	} {
		got, err := Judge(c.now, c.offsets, Bounds{floor, c.ledger})
		if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
}

func TestSane(t *testing.T) {
	build := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct{ now, want time.Time }{
		"no clock":        {time.Unix(0, 0), build},
		"a good one":      {build.AddDate(3, 0, 0), build.AddDate(3, 0, 0)},
		"a clock in 2100": {time.Date(2100, 1, 1, 0, 0, 0, 0, time.UTC), build},
	} {
		if got := Sane(c.now, build); !got.Equal(c.want) {
			t.Errorf("%s: %v", name, got)
		}
	}
	if now := time.Unix(5, 0); !Sane(now, time.Time{}).Equal(now) {
		t.Error("nothing is known, but the clock is set")
	}
}

// server is an NTP server on loopback whose clock is off by what it is given.
func server(t *testing.T, off time.Duration) string {
	t.Helper()
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := conn.Close(); err != nil {
			t.Error(err)
		}
	})
	go func() {
		b := make([]byte, 512)
		for {
			n, from, err := conn.ReadFrom(b)
			if err != nil {
				return
			}
			if n < 48 {
				continue
			}
			r := make([]byte, 48)
			r[0], r[1], r[2], r[3] = 4<<3|4, 2, b[2], 0xec // version 4, server, stratum 2
			copy(r[24:32], b[40:48])                       // what the client sent
			for _, at := range []int{16, 32, 40} {
				x := time.Now().Add(off)
				binary.BigEndian.PutUint32(r[at:], uint32(x.Unix()+2208988800))
				binary.BigEndian.PutUint32(r[at+4:], uint32(uint64(x.Nanosecond())<<32/1e9))
			}
			if _, err := conn.WriteTo(r, from); err != nil {
				return
			}
		}
	}()
	return conn.LocalAddr().String()
}

func TestStepOnceThenSlew(t *testing.T) {
	day := 24 * time.Hour
	servers := []string{server(t, day), server(t, day)}
	var steps, slews atomic.Int64
	var end context.CancelFunc
	run := func(s *Sync) {
		ctx, cancel := context.WithCancel(context.Background())
		defer cancel()
		end = cancel
		s.Run(ctx)
	}
	s := &Sync{Servers: func() []string { return servers }, Bounds: func() Bounds { return Bounds{Floor: time.Now().Add(-time.Hour)} },
		Step: func(x time.Time) error {
			if d := time.Until(x); d < day-time.Minute || d > day+time.Minute {
				t.Errorf("stepped by %v", d)
			}
			steps.Add(1)
			end()
			return nil
		},
		Slew:  func(d time.Duration) error { slews.Add(1); end(); return nil },
		Stamp: filepath.Join(t.TempDir(), "stepped"), Clock: System{}, Log: slog.New(slog.DiscardHandler)}
	run(s)
	if steps.Load() != 1 || slews.Load() != 0 {
		t.Fatalf("%d steps, %d slews", steps.Load(), slews.Load())
	}
	run(s) // another agent of the same boot
	if steps.Load() != 1 || slews.Load() != 1 {
		t.Errorf("%d steps, %d slews", steps.Load(), slews.Load())
	}
	// A server that is behind the floor moves nothing.
	servers = []string{server(t, -2*day)}
	if err := s.once(servers); err == nil || !strings.Contains(err.Error(), "has passed") || slews.Load() != 1 {
		t.Errorf("%v, %d slews", err, slews.Load())
	}
}
