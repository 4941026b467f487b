// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/netlink"
)

// newTap makes a tap with an address, as the agent's network part would.
func newTap(t *testing.T, name, address string) *os.File {
	t.Helper()
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	req, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), name)
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	c, err := netlink.Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	device, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatal(err)
	}
	prefix := netip.MustParsePrefix(address)
	link := make([]byte, unix.SizeofIfInfomsg)
	binary.NativeEndian.PutUint32(link[4:], uint32(device.Index))
	binary.NativeEndian.PutUint32(link[8:], unix.IFF_UP)
	binary.NativeEndian.PutUint32(link[12:], unix.IFF_UP)
	if _, err := c.Do(unix.RTM_NEWLINK, 0, link); err != nil {
		t.Fatal(err)
	}
	addr := []byte{unix.AF_INET, byte(prefix.Bits()), 0, 0, 0, 0, 0, 0}
	binary.NativeEndian.PutUint32(addr[4:], uint32(device.Index))
	addr = netlink.Attr(addr, unix.IFA_LOCAL, prefix.Addr().AsSlice())
	if _, err := c.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, addr); err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	return f
}
