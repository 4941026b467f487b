// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/seed"
)

// TestDrivers: a bond and a VLAN ask for their drivers before anything is made.
func TestDrivers(t *testing.T) {
	none := errors.New("no such driver")
	for _, c := range []struct {
		bond string
		vlan int64
		want []string
	}{
		{seed.BondLACP, 0, []string{"bonding"}}, {seed.BondActiveBackup, 7, []string{"bonding", "8021q"}}, {seed.BondNone, 7, []string{"8021q"}},
	} {
		cfg := seed.Automatic()
		cfg.Bond, cfg.VLAN = c.bond, c.vlan
		var asked []string
		u := &Uplink{Configs: []seed.Network{cfg}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Drivers: func(names []string) error {
			asked = names
			return none
		}}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		err := newSession(u, &cfg, 0).run(ctx)
		cancel()
		if !errors.Is(err, none) || !slices.Equal(asked, c.want) {
			t.Errorf("%+v: asked for %v, %v", c, asked, err)
		}
	}
	if cfg := seed.Automatic(); len(driversOf(&cfg)) > 0 {
		t.Errorf("a plain network asks for %v", driversOf(&cfg))
	}
}

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
