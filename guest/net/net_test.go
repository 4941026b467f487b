// SPDX-License-Identifier: Apache-2.0

package net

import (
	"context"
	"net"
	"os"
	"path/filepath"
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

// A device that has IPv6 asks no router and makes no address of its own; one
// that has none is without IPv6.
func TestQuiet(t *testing.T) {
	for _, c := range []struct {
		only4 bool
		want  map[string]string
	}{
		{true, map[string]string{"accept_ra": "1", "autoconf": "1", "disable_ipv6": "1"}},
		{false, map[string]string{"accept_ra": "0", "autoconf": "0", "disable_ipv6": "0"}},
	} {
		conf := t.TempDir()
		for _, device := range []string{"eth0", "eth1"} {
			if err := os.Mkdir(filepath.Join(conf, device), 0o755); err != nil {
				t.Fatal(err)
			}
			for name, value := range map[string]string{"accept_ra": "1", "autoconf": "1", "disable_ipv6": "0"} {
				if err := os.WriteFile(filepath.Join(conf, device, name), []byte(value), 0o600); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := quiet(conf, "eth0", c.only4); err != nil {
			t.Fatal(err)
		}
		for name, want := range c.want {
			if b, err := os.ReadFile(filepath.Join(conf, "eth0", name)); err != nil || string(b) != want {
				t.Errorf("only4=%t: %s is %q, %v; want %s", c.only4, name, b, err, want)
			}
		}
		if b, err := os.ReadFile(filepath.Join(conf, "eth1", "disable_ipv6")); err != nil || string(b) != "0" {
			t.Errorf("another device was changed: %q, %v", b, err)
		}
		if err := quiet(conf, "none", c.only4); err != nil {
			t.Errorf("a kernel without IPv6: %v", err)
		}
		for _, name := range []string{"accept_ra", "autoconf", "disable_ipv6"} {
			bad := t.TempDir()
			if err := os.MkdirAll(filepath.Join(bad, "eth0", name), 0o755); err != nil { // not even root writes to a folder
				t.Fatal(err)
			}
			if err := quiet(bad, "eth0", c.only4); (err != nil) != (c.only4 == (name == "disable_ipv6")) {
				t.Errorf("only4=%t, %s cannot be written: %v", c.only4, name, err)
			}
		}
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
	still6 := hasIPv6(mac)
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
		if len(still6) > 0 {
			t.Errorf("a device of IPv4 alone has IPv6: %q", still6)
		}
		if err3 == nil || !strings.Contains(err3.Error(), "no such device") {
			t.Errorf("a device that is not there: %v", err3)
		}
	}
}

// hasIPv6 is what of the device's settings says that it still has IPv6; a
// kernel without IPv6 has no such settings.
func hasIPv6(mac net.HardwareAddr) string {
	device, err := find(context.Background(), mac)
	if err != nil {
		return err.Error()
	}
	b, err := os.ReadFile("/proc/sys/net/ipv6/conf/" + device.Name + "/disable_ipv6")
	if err != nil || string(b) == "1\n" {
		return ""
	}
	return string(b)
}
