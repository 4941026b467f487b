// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// TestLiesDoNotPileUp: a node that hears nothing but lies for a year remembers
// one of each ledger and kind, and counts the rest.
func TestLiesDoNotPileUp(t *testing.T) {
	tr := trouble{last: map[string]string{}}
	log, now := slog.New(slog.DiscardHandler), time.Unix(1000, 0)
	lies := []Refusal{{"http://a", ledger.ErrForged}, {"http://a", ledger.ErrFork}, {"http://b", ledger.ErrForged}}
	for range 1000 {
		tr.show(log, now, lies, errors.New("no good ledger"))
		now = now.Add(again)
	}
	if len(tr.pending) != len(lies) {
		t.Fatalf("%d wait to be reported", len(tr.pending))
	}
	tr.pending = nil // a good ledger has them
	tr.show(log, now, lies[:1], nil)
	if len(tr.pending) != 1 || !strings.Contains(tr.pending[0].detail, "; 999 more since ") {
		t.Errorf("%+v", tr.pending)
	}
}

// TestWords: what the console calls each fault; a node whose own storage fails
// does not accuse its ledger.
func TestWords(t *testing.T) {
	for want, err := range map[string]error{
		"not-kept":    fmt.Errorf("sync: %w", ledger.ErrState),
		"forged":      ledger.ErrForged,
		"rollback":    ledger.ErrRollback,
		"fork":        ledger.ErrFork,
		"unreachable": errors.New("connection refused"),
	} {
		if got := word(err); got != want {
			t.Errorf("%v: %q, want %q", err, got, want)
		}
	}
}
