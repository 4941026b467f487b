// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"testing"

	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/ledger"
)

// TestWrongOfNobody: a file of the store that is not what it was is recorded
// also when no deployment here needs it.
func TestWrongOfNobody(t *testing.T) {
	for name, owners := range map[string][]int64{"nobody's": nil, "of a deployment that is gone": {4711}} {
		t.Run(name, func(t *testing.T) {
			h := newHost(t, 1)
			h.boot()
			h.until("enrolled", func(s *ledger.State) bool { return s.Node(h.key.KeyID()) != nil })
			if err := h.f.Wrong(content.Finding{Path: "/store/x", Owners: owners}); err != nil {
				t.Fatal(err)
			}
			h.until("the incident", func(*ledger.State) bool { return h.incident(deploy.IncidentContent) })
		})
	}
}
