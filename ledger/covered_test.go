// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
)

// TestStateRootCoversEverything: whoever makes a snapshot that is whole, but has
// one value more, less or another in any part of the state, is found out by the
// state root. Otherwise a snapshot could grant claims or drop revocations.
func TestStateRootCoversEverything(t *testing.T) {
	l, _ := eventful(t)
	s := l.State()
	url := l.Serve()
	// A claim stands in its deployment as well, so that its loss is found before.
	before := map[string]string{"claim drop": "is missing"}
	for _, part := range s.Parts() {
		for _, how := range []string{"alter", "add", "drop"} {
			what, want := part+" "+how, "has state root"
			if w, ok := before[what]; ok {
				want = w
			}
			// The first value that OpenSnapshot alone has nothing against: what others
			// need cannot be dropped.
			var lie []byte
			for n := 0; ; n++ {
				b := s.Lie(part, how, n)
				if b == nil {
					break
				}
				other, err := ledger.OpenSnapshot(b)
				if err == nil && other.StateRoot() == s.StateRoot() {
					t.Errorf("%s, value %d: has the same state root", what, n)
				}
				if lie = b; err == nil {
					break
				}
			}
			if lie == nil {
				t.Errorf("%s: no such value in the history of this test, or Lie does not know the part", what)
				continue
			}
			l.Snapshot(func([]byte) []byte { return lie })
			c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{url}, Snapshot: true})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), want) || c.State().Size() != 0 {
				t.Errorf("%s: %v, want %q", what, err, want)
			}
		}
	}
}
