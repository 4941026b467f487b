// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"
)

// TestAsk: a program that does not start is no end of the agent, which follows on
// and can be updated; it is reported once, and used as soon as it works.
func TestAsk(t *testing.T) {
	broken, full := errors.New("exec format error"), errors.New("disk full")
	quiet := slog.New(slog.DiscardHandler)
	var told []string
	tell := func(kind, detail string) error {
		told = append(told, kind+": "+detail)
		return nil
	}
	asked := 0
	got, err := Ask(t.Context(), quiet, time.Millisecond, func(context.Context) (string, error) {
		if asked++; asked < 4 {
			return "", broken
		}
		return "v53", nil
	}, tell)
	if err != nil || got != "v53" || !slices.Equal(told, []string{"hypervisor-unusable: exec format error"}) {
		t.Errorf("%q, %v, after %d times, told %q", got, err, asked, told)
	}

	told = nil
	if got, err = Ask(t.Context(), quiet, time.Hour, func(context.Context) (string, error) { return "v54", nil }, tell); err != nil || got != "v54" || len(told) != 0 {
		t.Errorf("one that works: %q, %v, told %q", got, err, told)
	}

	// What cannot be reported ends the agent, as every incident does.
	if _, err = Ask(t.Context(), quiet, time.Hour, func(context.Context) (string, error) { return "", broken }, func(string, string) error { return full }); !errors.Is(err, full) {
		t.Errorf("not reported: %v", err)
	}

	// An agent that is told to end does not wait for it, and says nothing of it.
	ctx, cancel := context.WithCancel(t.Context())
	told = nil
	if _, err = Ask(ctx, quiet, time.Hour, func(context.Context) (string, error) { cancel(); return "", ctx.Err() }, tell); !errors.Is(err, context.Canceled) || len(told) != 0 {
		t.Errorf("ended: %v, told %q", err, told)
	}
}
