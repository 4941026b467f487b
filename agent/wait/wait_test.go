// SPDX-License-Identifier: Apache-2.0

package wait

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"
)

func TestLineSaysWhatForAndHowLong(t *testing.T) {
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	t0 := time.Unix(0, 0)
	l := Start(log, t0, "an address", "dhcp on eth0")
	for s := 0; s <= 600; s++ {
		l.Tick(t0.Add(time.Duration(s) * time.Second))
	}
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	if !strings.Contains(lines[0], `msg="waiting for an address" for="dhcp on eth0" elapsed=1s`) {
		t.Errorf("first line %q", lines[0])
	}
	if len(lines) < 10 || len(lines) > 20 {
		t.Errorf("%d lines in ten minutes", len(lines))
	}
}

func TestUntil(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	n := 0
	if err := Until(context.Background(), log, "x", "y", time.Nanosecond, func() (bool, error) { n++; return n == 3, nil }); err != nil || n != 3 {
		t.Fatal(n, err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	err := Until(ctx, log, "x", "y", time.Hour, func() (bool, error) { return false, nil })
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}
