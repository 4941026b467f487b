// SPDX-License-Identifier: Apache-2.0

package power

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/netlink"
)

func event(class string) []byte {
	data := make([]byte, 44)
	copy(data, class)
	copy(data[20:], "LNXPWRBN:00")
	return netlink.Attr([]byte{1, 1, 0, 0}, eventAttr, data)
}

func TestIsButton(t *testing.T) {
	if !isButton(event("button/power")) {
		t.Error("the button was not seen")
	}
	for _, b := range [][]byte{nil, event("button/sleep"), event("button/powerful"), event("button/power")[:30], {1, 1, 0, 0}} {
		if isButton(b) {
			t.Errorf("%q is no power button", b)
		}
	}
}

func TestGroupID(t *testing.T) {
	one := netlink.Attr(netlink.Attr(nil, unix.CTRL_ATTR_MCAST_GRP_ID, netlink.Uint32(5)), unix.CTRL_ATTR_MCAST_GRP_NAME, []byte("other\x00"))
	two := netlink.Attr(netlink.Attr(nil, unix.CTRL_ATTR_MCAST_GRP_ID, netlink.Uint32(6)), unix.CTRL_ATTR_MCAST_GRP_NAME, []byte(group+"\x00"))
	groups := netlink.Attr(netlink.Attr(nil, 1, one), 2, two)
	if id, err := groupID(netlink.Attr([]byte{1, 2, 0, 0}, unix.CTRL_ATTR_MCAST_GROUPS, groups)); err != nil || id != 6 {
		t.Errorf("%d, %v", id, err)
	}
	if _, err := groupID(netlink.Attr([]byte{1, 2, 0, 0}, unix.CTRL_ATTR_MCAST_GROUPS, netlink.Attr(nil, 1, one))); !errors.Is(err, ErrNoACPI) {
		t.Errorf("another group: %v", err)
	}
}

func FuzzIsButton(f *testing.F) {
	f.Add(event("button/power"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		isButton(b)
		_, _ = groupID(b)
	})
}
