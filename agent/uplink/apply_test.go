// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/uplink/nstest"
)

// TestNothingOfTheOldPlanStays gives one link plan after plan, and looks each
// time at all that the kernel and resolv.conf have.
func TestNothingOfTheOldPlanStays(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Outside(t).Cable("up0", mac0, "r0")
	link, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	resolv := filepath.Join(t.TempDir(), "resolv.conf")
	fixed := func(list ...string) (out []Address) {
		for _, a := range list {
			out = append(out, Address{Prefix: netip.MustParsePrefix(a)})
		}
		return out
	}
	addrs := func(list ...string) (out []netip.Addr) {
		for _, a := range list {
			out = append(out, addr(a))
		}
		return out
	}
	now := time.Now()
	for i, c := range []struct {
		plan Plan
		want string
	}{
		{Plan{Addresses: fixed("10.0.2.15/24"), Routers: addrs("10.0.2.2"), DNS: addrs("10.0.2.2", "10.0.2.3")}, "10.0.2.15/24 | 10.0.2.2 | nameserver 10.0.2.2,nameserver 10.0.2.3"},
		{Plan{Addresses: fixed("10.0.2.15/24"), Routers: addrs("10.0.2.3"), DNS: addrs("10.0.2.3")}, "10.0.2.15/24 | 10.0.2.3 | nameserver 10.0.2.3"},
		{Plan{Addresses: fixed("10.0.2.15/24")}, "10.0.2.15/24 |  | "},
		{Plan{Addresses: fixed("10.0.2.16/24", "2001:db8::16/64"), Routers: addrs("10.0.2.2", "2001:db8::1"), Search: []string{"a.b"}}, "10.0.2.16/24,2001:db8::16/64 | 10.0.2.2,2001:db8::1 | search a.b"},
		{Plan{Addresses: fixed("2001:db8::17/64"), Routers: addrs("fe80::1")}, "2001:db8::17/64 | fe80::1 | "},
		{Plan{Addresses: []Address{{netip.MustParsePrefix("2001:db8::18/64"), now, now.Add(-time.Second)}}}, " |  | "},
		{Plan{Addresses: fixed("10.0.2.15/24"), Routers: addrs("10.0.2.2"), DNS: addrs("10.0.2.2")}, "10.0.2.15/24 | 10.0.2.2 | nameserver 10.0.2.2"},
		{Plan{}, " |  | "},
	} {
		if c.plan.Usable() {
			err = apply(link, c.plan, now)
		} else {
			err = clearLink(link)
		}
		if err == nil {
			err = writeResolv(resolv, c.plan)
		}
		if err != nil {
			t.Fatalf("plan %d: %v", i, err)
		}
		names, err := os.ReadFile(resolv)
		if err != nil {
			t.Fatal(err)
		}
		have := addresses(t, "up0")
		slices.Sort(have)
		got := strings.Join(have, ",") + " | " + strings.Join(routers(t), ",") + " | " + strings.ReplaceAll(strings.TrimSpace(string(names)), "\n", ",")
		if got != c.want {
			t.Errorf("plan %d: %q, want %q", i, got, c.want)
		}
	}
}
