// SPDX-License-Identifier: Apache-2.0

package update

import (
	"crypto/rand"
	"crypto/rsa"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/image/imagetest"
	"github.com/zos-node/zos/ledger"
)

// pcrKey is a maker's, and what a state that is sealed to it says.
func pcrKey(t *testing.T) (key *rsa.PrivateKey, maker string) {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	sig, err1 := pcrsig.Sign(pcrsig.Register{1}, key)
	public, err2 := pcrsig.PublicKey(key)
	s, err3 := pcrsig.Decode(sig, public)
	if err := errors.Join(err1, err2, err3); err != nil {
		t.Fatal(err)
	}
	return key, s.Fingerprint
}

// TestSealedState: what the state would not open under is refused before anything
// is changed, and the ledger hears why; the maker's next image is taken. A node
// that has sealed nothing takes every image.
func TestSealedState(t *testing.T) {
	ours, maker := pcrKey(t)
	theirs, _ := pcrKey(t)
	measured := func(kernel string, key *rsa.PrivateKey) []byte {
		b, err := imagetest.Measured("1.1", board, []byte(kernel), key)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	altered := measured("kernel of the next", ours)
	altered[strings.Index(string(altered), "kernel of the next")] ^= 1
	for name, c := range map[string]struct {
		maker  string
		uki    []byte
		reason string // "": it is taken
	}{
		"the same maker":           {maker, measured("next", ours), ""},
		"another maker":            {maker, measured("next", theirs), "would stay locked under the image: sealed for images of another maker: it wants key " + maker[:16]},
		"built without keys":       {maker, uki("1.1", 40_000), "would stay locked under the image: this image carries no signed measurement"},
		"signed, and then altered": {maker, altered, "would stay locked under the image: register 11 does not hold what the image's maker signed"},
		"not sealed, another":      {"", measured("next", theirs), ""},
		"not sealed, without":      {"", uki("1.1", 40_000), ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.maker = c.maker
			id := r.rollout(r.put("1.1", c.uki), "1.1", nil)
			got := r.settle()
			u := r.log.State().Updated(id, "edge")
			if c.reason == "" {
				if got != "1.1" || u == nil || u.Result != ledger.UpdateBlessed {
					t.Errorf("runs %s, the ledger has %+v", got, u)
				}
				return
			}
			if got != "1.0" || !slices.Equal(r.slots(), []string{"zos-1.0.efi"}) || len(r.starts) != 1 {
				t.Errorf("runs %s of %v after %v", got, r.slots(), r.starts)
			}
			if u == nil || u.Result != ledger.UpdateFailed || u.Running != "1.0" || !strings.Contains(u.Reason, c.reason) {
				t.Errorf("the ledger has %+v, want a reason with %q", u, c.reason)
			}
		})
	}
}

// TestLocked: a state that does not open costs a trial its one start, also when the
// boot partition is looked through meanwhile; the image before is left to wait, and
// nothing on its boot partition changes.
func TestLocked(t *testing.T) {
	r := newRig(t)
	calls := r.disk.Calls
	r.broken["1.0"] = "locked"
	if got := r.settle(); got != "1.0" || r.disk.Calls != calls {
		t.Errorf("%s after %v, %d writes", got, r.starts, r.disk.Calls-calls)
	}
	r.broken["1.0"] = ""
	id := r.rollout(r.release("1.1", 40_000), "1.1", nil)
	r.broken["1.1"], r.busy = "locked", 3
	if got := r.settle(); got != "1.0" || !slices.Equal(r.starts, []string{"1.0", "1.0", "1.1", "1.0"}) || r.busy != 0 {
		t.Errorf("runs %s after %v", got, r.starts)
	}
	if u := r.log.State().Updated(id, "edge"); u == nil || u.Result != ledger.UpdateRolledBack || !strings.Contains(u.Reason, errLocked.Error()) {
		t.Errorf("the ledger has %+v", u)
	}
}
