// SPDX-License-Identifier: Apache-2.0

package measure

import (
	"encoding/hex"
	"testing"
)

// TestExtend: SHA-256 of 32 zeros and the digest of nothing, by another
// program.
func TestExtend(t *testing.T) {
	var r Register
	r.Extend(nil)
	if got := hex.EncodeToString(r[:]); got != "1c9ecec90e28d2461650418635878a5c91e49f47586ecf75f2b0cbb94e897112" {
		t.Error(got)
	}
}

func FuzzUKI(f *testing.F) {
	f.Add([]byte("MZ"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := UKI(b); err == nil && len(b) < 200 {
			t.Error("a UKI out of nothing")
		}
	})
}
