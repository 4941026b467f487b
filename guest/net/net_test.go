// SPDX-License-Identifier: Apache-2.0

package net

import (
	"context"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/netlink"
	"github.com/zos-node/zos/guest/wire"
)

func TestParse(t *testing.T) {
	good := wire.Interface{MAC: "52:54:00:00:00:01", Address: "10.1.0.5/24", Gateway: "10.1.0.1", MTU: 1500}
	if p, err := Parse(good); err != nil || p.Address.Bits() != 24 || p.Gateway.String() != "10.1.0.1" {
		t.Errorf("%+v, %v", p, err)
	}
	for want, change := range map[string]func(*wire.Interface){
		"MAC":     func(i *wire.Interface) { i.MAC = "x" },
		"Address": func(i *wire.Interface) { i.Address = "10.1.0.5" },
		"ParseA":  func(i *wire.Interface) { i.Gateway = "10.1.0.300" },
		"not in":  func(i *wire.Interface) { i.Gateway = "10.2.0.1" },
		"MTU":     func(i *wire.Interface) { i.MTU = 100 },
	} {
		i := good
		change(&i)
		if _, err := Parse(i); err == nil {
			t.Errorf("%s: accepted", want)
		}
	}
}

func TestHosts(t *testing.T) {
	got := Hosts(map[string]string{"web": "10.1.0.5", "db": "10.1.0.4"})
	if want := "127.0.0.1\tlocalhost\n::1\tlocalhost\n10.1.0.4\tdb\n10.1.0.5\tweb\n"; got != want {
		t.Errorf("%q", got)
	}
}

// In a network namespace of its own, with a dummy or veth device, the kernel
// judges the messages.
func TestSetup(t *testing.T) {
	result := make(chan func(), 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends here
		result <- setupInNamespace(t)
	}()
	(<-result)()
}

func setupInNamespace(t *testing.T) func() {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return func() { t.Skipf("SKIP network set-up: no namespace: %v", err) }
	}
	c, err := netlink.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return func() { t.Fatal(err) }
	}
	mac, err := net.ParseMAC("52:54:00:00:00:01")
	if err != nil {
		return func() { t.Fatal(err) }
	}
	made := false
	for _, kind := range []string{"dummy", "veth", "bridge"} {
		b := netlink.Attr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_ADDRESS, mac)
		b = netlink.Attr(b, unix.IFLA_LINKINFO, netlink.Attr(nil, unix.IFLA_INFO_KIND, []byte(kind)))
		if _, err := c.Do(unix.RTM_NEWLINK, unix.NLM_F_CREATE, b); err == nil {
			made = true
			break
		}
	}
	if err := c.Close(); err != nil {
		return func() { t.Fatal(err) }
	}
	if !made {
		return func() { t.Skip("SKIP network set-up: the kernel makes no test device") }
	}
	err = Setup(context.Background(), []wire.Interface{{MAC: mac.String(), Address: "10.1.0.5/24", Gateway: "10.1.0.1", MTU: 1400}})
	addrs, err2 := Addresses()
	missing, cancel := context.WithCancel(context.Background())
	cancel()
	err3 := Setup(missing, []wire.Interface{{MAC: "52:54:00:00:00:02", Address: "10.1.0.6/24", MTU: 1400}})
	return func() {
		if err != nil || err2 != nil {
			t.Fatal(err, err2)
		}
		if !slices.Contains(addrs, mac.String()+" 10.1.0.5/24") {
			t.Errorf("%v", addrs)
		}
		if err3 == nil || !strings.Contains(err3.Error(), "no such device") {
			t.Errorf("a device that is not there: %v", err3)
		}
	}
}
