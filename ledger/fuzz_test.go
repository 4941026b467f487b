// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"testing"

	"golang.org/x/mod/sumdb/tlog"
)

// FuzzProof: a tlog-proof is read in one way, and none is taken in two.
func FuzzProof(f *testing.F) {
	f.Add(EntryProof{Index: 3, Proof: tlog.RecordProof{tlog.RecordHash(nil)}}.Format([]byte("a\n1\nAAAA\n\n— a b\n")))
	f.Add("c2sp.org/tlog-proof@v1\nindex 0\n\n")
	f.Add("c2sp.org/tlog-proof@v1\nindex -1\n\n")
	f.Fuzz(func(t *testing.T, s string) {
		index, proof, signed, err := parseProof(s)
		if err != nil {
			return
		}
		if again := (EntryProof{Index: index, Proof: proof}).Format(signed); again != s {
			t.Errorf("%q is read as %q", s, again)
		}
	})
}
