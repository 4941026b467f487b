// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/nstest"
)

// bench is an uplink at work in the test's namespace.
type bench struct {
	t      *testing.T
	u      *Uplink
	dir    string
	mu     sync.Mutex
	ups    []Up
	cancel context.CancelFunc
	ended  chan struct{}
}

// start runs an uplink whose test is that url answers; "" tests nothing.
func start(t *testing.T, url string, configs ...seed.Network) *bench {
	t.Helper()
	b := &bench{t: t, dir: t.TempDir()}
	b.u = &Uplink{Configs: configs, Host: "n", Resolv: filepath.Join(b.dir, "resolv.conf"), Good: filepath.Join(b.dir, "good"), Clock: clock.System{},
		Log: slog.New(slog.NewTextHandler(os.Stdout, nil)), Moved: func() {}, Hold: time.Second, Trial: 8 * time.Second,
		Changed: func(up Up) {
			b.mu.Lock()
			defer b.mu.Unlock()
			b.ups = append(b.ups, up)
		}}
	if url != "" {
		b.u.Reach = func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
			if err != nil {
				return err
			}
			web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: (&net.Dialer{Timeout: 2 * time.Second}).DialContext}}
			res, err := web.Do(req)
			if err != nil {
				return err
			}
			return res.Body.Close()
		}
	}
	b.run()
	t.Cleanup(b.stop)
	return b
}

func (b *bench) run() {
	ctx, cancel := context.WithCancel(context.Background())
	b.cancel, b.ended = cancel, make(chan struct{})
	go func() {
		defer close(b.ended)
		b.u.Run(ctx)
	}()
}

func (b *bench) stop() {
	b.cancel()
	<-b.ended
}

func (b *bench) up() Up {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.ups) == 0 {
		return Up{}
	}
	return b.ups[len(b.ups)-1]
}

func (b *bench) eventually(link string, proven bool, addresses ...string) {
	b.t.Helper()
	nstest.Eventually(b.t, fmt.Sprintf("%s, proven %v, %v", link, proven, addresses), func() bool {
		up := b.up()
		var got []string
		for _, a := range up.Addresses {
			got = append(got, a.String())
		}
		return up.Link == link && up.Proven == proven && slices.Equal(got, addresses)
	})
}

func (b *bench) resolv(want string) {
	b.t.Helper()
	if got, err := os.ReadFile(b.u.Resolv); err != nil || string(got) != want {
		b.t.Errorf("resolv.conf %q %v, want %q", got, err, want)
	}
}

// addresses are those of a link, without link-local ones.
func addresses(t *testing.T, name string) []string {
	t.Helper()
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := ours(l)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, a := range addrs {
		out = append(out, a.IPNet.String())
	}
	return out
}

func routers(t *testing.T) []string {
	t.Helper()
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, r := range routes {
		if r.Gw != nil {
			out = append(out, r.Gw.String())
		}
	}
	slices.Sort(out)
	return out
}

// serve answers on an address of the outside, as a ledger would.
func serve(t *testing.T, n *nstest.Net, addr string) {
	t.Helper()
	n.Do(func() error {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			return err
		}
		s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "here") })}
		go s.Serve(l) //nolint:errcheck // ends with the test
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		return nil
	})
}

// dhcp is a network with a DHCP server and a way to 192.0.2.80.
func dhcp(t *testing.T, near, mac, subnet string) *nstest.Net {
	t.Helper()
	n := nstest.Outside(t)
	n.Cable(near, mac, "r0")
	n.IP("address", "add", subnet+".1/24", "dev", "r0")
	n.IP("address", "add", "192.0.2.80/32", "dev", "lo")
	dnsmasq(t, n, "--dhcp-range="+subnet+".10,"+subnet+".10,1h", "--dhcp-option=option:dns-server,"+subnet+".53", "--dhcp-option=option:ntp-server,"+subnet+".123")
	return n
}

func dnsmasq(t *testing.T, n *nstest.Net, args ...string) (stop func()) {
	t.Helper()
	return n.Start("dnsmasq", append([]string{"-k", "-C", "/dev/null", "--port=0", "--interface=r0", "--log-facility=-", "--user=root", "--pid-file", "--no-ping",
		"--dhcp-leasefile=" + filepath.Join(t.TempDir(), "leases")}, args...)...)
}

const (
	mac0 = "02:00:00:00:00:01"
	mac1 = "02:00:00:00:00:02"
)

// TestCableMoves has two cards, of which the first is dead; then the second
// dies and the first lives; then both are there. The address goes along.
func TestCableMoves(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	zero, one := dhcp(t, "up0", mac0, "10.0.2"), dhcp(t, "up1", mac1, "10.0.3")
	serve(t, zero, "192.0.2.80:80")
	serve(t, one, "192.0.2.80:80")
	zero.IP("link", "set", "r0", "down")
	b := start(t, "http://192.0.2.80", seed.Automatic())
	b.eventually("up1", true, "10.0.3.10/24")
	b.resolv("nameserver 10.0.3.53\n")
	if got := routers(t); !slices.Equal(got, []string{"10.0.3.1"}) || !slices.Equal(b.up().NTP, []string{"10.0.3.123"}) {
		t.Errorf("routers %v, time %v", got, b.up().NTP)
	}
	zero.IP("link", "set", "r0", "up")
	one.IP("link", "set", "r0", "down")
	b.eventually("up0", true, "10.0.2.10/24")
	if got := addresses(t, "up1"); len(got) != 0 {
		t.Errorf("up1 still has %v", got)
	}
	if got := routers(t); !slices.Equal(got, []string{"10.0.2.1"}) {
		t.Errorf("routers %v", got)
	}
	b.resolv("nameserver 10.0.2.53\n")
	// The first cable back is no reason to leave what works.
	one.IP("link", "set", "r0", "up")
	// Pulled and back on the only link that works: the same address.
	zero.IP("link", "set", "r0", "down")
	b.eventually("up1", true, "10.0.3.10/24")
	one.IP("link", "set", "r0", "down")
	nstest.Eventually(t, "no carrier seen", func() bool {
		l, err := netlink.LinkByName("up1")
		return err == nil && !carrier(l.Attrs())
	})
	one.IP("link", "set", "r0", "up")
	b.eventually("up1", true, "10.0.3.10/24")
}

// TestLinkWithoutLedger: both cards get an address, the first leads nowhere.
func TestLinkWithoutLedger(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	dhcp(t, "up0", mac0, "10.0.2")
	serve(t, dhcp(t, "up1", mac1, "10.0.3"), "192.0.2.80:80")
	b := start(t, "http://192.0.2.80", seed.Automatic())
	b.eventually("up1", true, "10.0.3.10/24")
	if got := addresses(t, "up0"); len(got) != 0 {
		t.Errorf("up0 still has %v", got)
	}
}

// TestByAddress takes the card that the seed names, not the first.
func TestByAddress(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	dhcp(t, "up0", mac0, "10.0.2")
	dhcp(t, "up1", mac1, "10.0.3")
	c := seed.Automatic()
	c.Links = []string{mac1}
	start(t, "", c).eventually("up1", true, "10.0.3.10/24")
}

// TestV6Only is a network without any IPv4: routers, name servers and the
// ledger are reached with the node's packet filter in force.
func TestV6Only(t *testing.T) {
	if !nstest.Enter(t, "radvd") {
		return
	}
	if err := network.Rules("", nil).Apply(); err != nil {
		t.Skipf("SKIP %s: no nftables here: %v", t.Name(), err)
	}
	n := nstest.Outside(t)
	n.Cable("up0", mac0, "r0")
	n.IP("address", "add", "2001:db8:7::1/64", "dev", "r0", "nodad")
	n.IP("address", "add", "2001:db8:80::80/128", "dev", "lo", "nodad")
	// Somebody has the address already that the card would give.
	n.IP("address", "add", "2001:db8:7::ff:fe00:1/64", "dev", "r0", "nodad")
	n.Sysctl("ipv6/conf/all/forwarding", "1")
	dir := t.TempDir()
	conf := filepath.Join(dir, "radvd.conf")
	if err := os.WriteFile(conf, []byte(`interface r0 { AdvSendAdvert on; AdvLinkMTU 1400; prefix 2001:db8:7::/64 { AdvValidLifetime 7200; AdvPreferredLifetime 3600; };
	RDNSS 2001:db8:7::53 { }; DNSSL example.net { }; };`), 0o600); err != nil {
		t.Fatal(err)
	}
	n.Start("radvd", "-n", "-C", conf, "-p", filepath.Join(dir, "pid"), "-m", "stderr")
	serve(t, n, "[2001:db8:80::80]:80")
	b := start(t, "http://[2001:db8:80::80]", seed.Automatic())
	other := interfaceAddress(netip.MustParsePrefix("2001:db8:7::/64"), net.HardwareAddr{2, 0, 0, 0, 0, 1}, 1)
	b.eventually("up0", true, other.String()+"/64")
	b.resolv("nameserver 2001:db8:7::53\nsearch example.net\n")
	if got := routers(t); len(got) != 1 || !strings.HasPrefix(got[0], "fe80:") {
		t.Errorf("routers %v", got)
	}
	if mtu, err := os.ReadFile("/proc/sys/net/ipv6/conf/up0/mtu"); err != nil || strings.TrimSpace(string(mtu)) != "1400" {
		t.Errorf("MTU %s %v", mtu, err)
	}
	l, err := netlink.LinkByName("up0")
	if err != nil {
		t.Fatal(err)
	}
	addrs, err := ours(l)
	if err != nil || len(addrs) != 1 || addrs[0].ValidLft > 7200 || addrs[0].ValidLft < 7000 || addrs[0].PreferedLft > 3600 {
		t.Errorf("%+v %v", addrs, err)
	}
}

// TestManaged gets its IPv6 address by DHCPv6, because the routers say so.
func TestManaged(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	n := nstest.Outside(t)
	n.Cable("up0", mac0, "r0")
	n.IP("address", "add", "2001:db8:7::1/64", "dev", "r0", "nodad")
	n.Sysctl("ipv6/conf/all/forwarding", "1")
	dnsmasq(t, n, "--enable-ra", "--dhcp-range=2001:db8:7::10,2001:db8:7::10,64,1h", "--dhcp-option=option6:dns-server,[2001:db8:7::53]")
	serve(t, n, "[2001:db8:7::1]:80")
	b := start(t, "http://[2001:db8:7::1]", seed.Automatic())
	b.eventually("up0", true, "2001:db8:7::10/64")
	b.resolv("nameserver 2001:db8:7::53\n")
}

// TestStatic has both families from the seed.
func TestStatic(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	n := nstest.Outside(t)
	n.Cable("up0", mac0, "r0")
	c := seed.Automatic()
	c.IPv4 = seed.IP{Mode: seed.ModeStatic, Address: "192.0.2.7/24", Router: "192.0.2.1"}
	c.IPv6 = seed.IP{Mode: seed.ModeStatic, Address: "2001:db8::7/64", Router: "2001:db8::1"}
	c.DNS, c.NTP = []string{"192.0.2.3"}, []string{"time.example"}
	b := start(t, "", c)
	b.eventually("up0", true, "192.0.2.7/24", "2001:db8::7/64")
	b.resolv("nameserver 192.0.2.3\n")
	if got := routers(t); !slices.Equal(got, []string{"192.0.2.1", "2001:db8::1"}) || !slices.Equal(b.up().NTP, []string{"time.example"}) {
		t.Errorf("routers %v, time %v", got, b.up().NTP)
	}
	// Somebody takes the addresses away.
	nstest.IP(t, "address", "flush", "dev", "up0", "scope", "global")
	nstest.Eventually(t, "addresses again", func() bool { return len(addresses(t, "up0")) == 2 })
}

// TestRollBack gives a node that works a new seed that does not: it comes back
// to what worked, and stays there.
func TestRollBack(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	serve(t, dhcp(t, "up0", mac0, "10.0.2"), "192.0.2.80:80")
	good, wrong := seed.Automatic(), seed.Automatic()
	wrong.IPv4 = seed.IP{Mode: seed.ModeStatic, Address: "10.0.9.9/24", Router: "10.0.9.1"}
	wrong.IPv6.Mode = seed.ModeOff
	b := start(t, "http://192.0.2.80", good)
	b.eventually("up0", true, "10.0.2.10/24")
	b.stop()
	b.u.Configs = []seed.Network{wrong}
	b.run()
	b.eventually("up0", false, "10.0.9.9/24") // it is really tried
	b.eventually("up0", true, "10.0.2.10/24")
	kept, err := b.u.lastGood()
	if err != nil || kept == nil || kept.IPv4.Mode != seed.ModeDHCP {
		t.Errorf("keeps %+v %v", kept, err)
	}
	if got := addresses(t, "up0"); len(got) != 1 {
		t.Errorf("addresses %v", got)
	}
	// A configuration that works takes its place.
	b.stop()
	right := seed.Automatic()
	right.IPv4 = seed.IP{Mode: seed.ModeStatic, Address: "10.0.2.77/24", Router: "10.0.2.1"}
	b.u.Configs = []seed.Network{right}
	b.run()
	b.eventually("up0", true, "10.0.2.77/24")
	if kept, err = b.u.lastGood(); err != nil || kept == nil || kept.IPv4.Address != "10.0.2.77/24" {
		t.Errorf("keeps %+v %v", kept, err)
	}
}
