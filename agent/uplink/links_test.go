// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"testing"

	"github.com/vishvananda/netlink"
)

func TestCarrier(t *testing.T) {
	for name, c := range map[string]struct {
		state netlink.LinkOperState
		flags uint32
		want  bool
	}{
		"up":                               {netlink.OperUp, lowerUp, true},
		"no cable":                         {netlink.OperDown, 0, false},
		"the driver's word is newer":       {netlink.OperDown, lowerUp, true},
		"a driver that tells no state":     {netlink.OperUnknown, lowerUp, true},
		"nor carrier":                      {netlink.OperUnknown, 0, false},
		"waits for somebody to authorise":  {netlink.OperDormant, lowerUp, false},
		"a VLAN on a link without carrier": {netlink.OperLowerLayerDown, 0, false},
	} {
		if got := carrier(&netlink.LinkAttrs{OperState: c.state, RawFlags: c.flags}); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
