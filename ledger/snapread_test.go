// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"encoding/binary"
	"errors"
	"runtime"
	"testing"
)

// TestLengthsAreNotBelieved: however much a log allows, a length alone takes no
// memory: only what came does.
func TestLengthsAreNotBelieved(t *testing.T) {
	over := errors.New("over")
	length := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	for name, tt := range map[string]struct {
		b    []byte
		read func(*snapReader)
		want string
	}{
		"bytes that do not come":      {append(length(1<<29), 1, 2, 3), func(r *snapReader) { r.bytes() }, "ends too early"},
		"more bytes than are allowed": {length(1 << 30), func(r *snapReader) { r.bytes() }, "over"},
		"a list longer than the log":  {length(1001), func(r *snapReader) { r.list(40) }, "has a list that is longer than the log"},
		"what was said":               {length(1000), func(r *snapReader) { readSaid(r, NewState()) }, "ends too early"},
		"a table":                     {length(1000), func(r *snapReader) { readTable(r, &NewState().nodes, nil) }, "ends too early"},
	} {
		r := newSnapReader(bytes.NewReader(tt.b), 1<<30, over)
		r.size = 1000
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		tt.read(r)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 1<<20 || r.err == nil || r.err.Error() != tt.want {
			t.Errorf("%s: %v after %d bytes of memory, want %q", name, r.err, n, tt.want)
		}
	}
	// The bytes that may come are those of one log, and a limit that is no lie.
	if most, over := allowed(nil, 10); most != 4096+10*5*MaxEntry || errors.Is(over, errNoSnapshot) {
		t.Errorf("a log of 10 entries allows %d bytes; more is %v", most, over)
	}
	if most, over := allowed(dirSource{"x"}, 1_000_000); most != maxSnapshot || !errors.Is(over, errNoSnapshot) {
		t.Errorf("a log of a million entries allows %d bytes; more is %v", most, over)
	}
}
