// SPDX-License-Identifier: Apache-2.0

package dhcp6

import (
	"context"
	"log/slog"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/uplink/nstest"
)

// TestDnsmasq gets, renews and loses an address of Debian's dnsmasq; the clock
// is the test's.
func TestDnsmasq(t *testing.T) {
	if !nstest.Enter(t, "dnsmasq") {
		return
	}
	outside := nstest.Outside(t)
	outside.Cable("up0", "02:00:00:00:00:01", "r0")
	outside.IP("address", "add", "2001:db8::1/64", "dev", "r0", "nodad")
	nstest.IP(t, "link", "set", "up0", "up")
	stop := outside.Start("dnsmasq", "-k", "-C", "/dev/null", "--port=0", "--interface=r0", "--log-facility=-", "--user=root", "--pid-file",
		"--dhcp-leasefile="+filepath.Join(t.TempDir(), "leases"), "--dhcp-range=2001:db8::10,2001:db8::10,64,1h",
		"--dhcp-option=option6:dns-server,[2001:db8::53]", "--dhcp-option=option6:domain-search,example.com", "--dhcp-option=option6:ntp-server,[2001:db8::123]")
	clk := clocktest.New(time.Unix(1_000_000, 0))
	applied := make(chan *Lease, 10)
	c := &Client{Clock: clk, Log: slog.New(slog.DiscardHandler), Link: "up0", Apply: func(l *Lease) error { applied <- l; return nil },
		Machine: NewMachine(net.HardwareAddr{2, 0, 0, 0, 0, 1}, false, func() uint32 { return uint32(time.Now().UnixNano()) }, clk.Now())}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- c.Run(ctx) }()
	defer func() {
		cancel()
		<-ended
	}()
	next := func(step time.Duration) *Lease {
		t.Helper()
		for real := time.Now(); time.Since(real) < time.Minute; {
			select {
			case l := <-applied:
				return l
			case err := <-ended:
				ended <- err
				t.Fatal(err)
			case <-time.After(10 * time.Millisecond):
				clk.Advance(step)
			}
		}
		t.Fatal("nothing happened")
		return nil
	}
	l := next(100 * time.Millisecond)
	if l == nil || l.Address.String() != "2001:db8::10" || l.Valid != time.Hour || len(l.DNS) != 1 || len(l.NTP) != 1 || len(l.Search) != 1 {
		t.Fatalf("%+v", l)
	}
	again := next(20 * time.Second)
	if again == nil || again.Address != l.Address || again.Start.Sub(l.Start) < l.T1 || again.Start.Sub(l.Start) > l.T2 {
		t.Fatalf("renewed %+v", again)
	}
	stop()
	if gone := next(20 * time.Second); gone != nil || clk.Now().Sub(again.Start) < again.Valid {
		t.Errorf("without a server: %+v after %v", gone, clk.Now().Sub(again.Start))
	}
}
