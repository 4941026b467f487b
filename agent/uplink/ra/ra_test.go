// SPDX-License-Identifier: Apache-2.0

package ra

import (
	"context"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/uplink/nstest"
)

// real is an advertisement with M, a high preference, a prefix, two name
// servers, two search domains, an MTU and an option nobody knows.
const real = "8600000040880708 0000000000000000" +
	"0304" + "40c0" + "00000e10" + "00000708" + "00000000" + "20010db8000100000000000000000000" +
	"1905" + "0000" + "00000258" + "20010db8000000000000000000000053" + "20010db8000000000000000000000054" +
	"1f04" + "0000" + "0000012c" + "076578616d706c6503636f6d00" + "026c6e00" + "00000000000000" +
	"0501" + "0000" + "000005dc" +
	"f001" + "112233445566"

func bytesOf(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestParse(t *testing.T) {
	a, err := Parse(bytesOf(t, real))
	if err != nil {
		t.Fatal(err)
	}
	want := &Advert{Managed: true, Preference: 1, Lifetime: 1800 * time.Second, MTU: 1500,
		Prefixes: []Prefix{{netip.MustParsePrefix("2001:db8:1::/64"), true, true, time.Hour, 30 * time.Minute}},
		RDNSS:    []Server{{netip.MustParseAddr("2001:db8::53"), 10 * time.Minute}, {netip.MustParseAddr("2001:db8::54"), 10 * time.Minute}},
		DNSSL:    []Name{{"example.com", 5 * time.Minute}, {"ln", 5 * time.Minute}}}
	if !reflect.DeepEqual(a, want) {
		t.Errorf("got  %+v\nwant %+v", a, want)
	}
}

func TestParseRefuses(t *testing.T) {
	head := "86000000400007080000000000000000"
	for name, in := range map[string]string{
		"empty":               "",
		"a solicitation":      "85" + head[2:],
		"code":                "8601" + head[4:],
		"cut head":            head[:30],
		"option of no length": head + "0500" + "0000000005dc",
		"option cut off":      head + "0304" + "40c000000e10",
		"prefix of 129 bits":  head + "0304" + "81c0" + "00000e10" + "00000708" + "00000000" + "20010db8000100000000000000000000",
		"short prefix":        head + "0303" + "40c0" + "00000e10" + "00000708" + "00000000" + "20010db800010000",
		"no server":           head + "1901" + "0000" + "00000258",
		"half a server":       head + "1902" + "0000" + "00000258" + "20010db800000000",
		"endless name":        head + "1f02" + "0000" + "00000258" + "0761626364656667",
		"long label":          head + "1f02" + "0000" + "00000258" + "4061626364656667",
		"a new line in names": head + "1f02" + "0000" + "00000258" + "03610a6200000000",
	} {
		if a, err := Parse(bytesOf(t, in)); err == nil {
			t.Errorf("%s: %+v", name, a)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(bytesOf(f, real))
	f.Fuzz(func(t *testing.T, b []byte) {
		a, err := Parse(b)
		if err != nil {
			return
		}
		now := time.Unix(1000, 0)
		table := NewTable()
		table.Add(now, netip.MustParseAddr("fe80::1"), a)
		v, next := table.At(now)
		if !next.IsZero() && !next.After(now) || len(v.Prefixes) > maxEntries || len(v.RDNSS) > maxEntries || len(v.DNSSL) > maxEntries {
			t.Fatalf("%+v, next %v", v, next)
		}
		for _, n := range v.DNSSL {
			if strings.ContainsAny(n, " \n#;") {
				t.Fatalf("name %q", n)
			}
		}
	})
}

func TestLifetimes(t *testing.T) {
	table, start := NewTable(), time.Unix(10_000, 0)
	one, two := netip.MustParseAddr("fe80::1"), netip.MustParseAddr("fe80::2")
	p := Prefix{netip.MustParsePrefix("2001:db8::/64"), true, true, 24 * time.Hour, 12 * time.Hour}
	dns := netip.MustParseAddr("2001:db8::53")
	add := func(after time.Duration, from netip.Addr, a Advert) { table.Add(start.Add(after), from, &a) }
	at := func(after time.Duration) View { v, _ := table.At(start.Add(after)); return v }
	add(0, one, Advert{Lifetime: time.Minute, Prefixes: []Prefix{p}, RDNSS: []Server{{dns, time.Minute}}})
	add(time.Second, two, Advert{Lifetime: time.Minute, Preference: 1})
	if v, next := table.At(start.Add(time.Second)); len(v.Routers) != 2 || v.Routers[0] != two || next != start.Add(time.Minute) {
		t.Errorf("%+v, next %v", v, next)
	}
	if v := at(time.Minute); len(v.Routers) != 1 || v.Routers[0] != two || len(v.RDNSS) != 0 || len(v.Prefixes) != 1 {
		t.Errorf("after one minute %+v", v)
	}
	add(70*time.Second, two, Advert{}) // a router that goes says so by a lifetime of 0
	if v := at(70 * time.Second); len(v.Routers) != 0 || !v.Prefixes[0].Valid.Equal(start.Add(24*time.Hour)) {
		t.Errorf("%+v", v)
	}
	// A stranger cannot end an address at once.
	short := p
	short.Valid, short.Preferred = time.Second, 0
	add(2*time.Hour, one, Advert{Prefixes: []Prefix{short}})
	if v := at(2 * time.Hour); !v.Prefixes[0].Valid.Equal(start.Add(4*time.Hour)) || !v.Prefixes[0].Preferred.Equal(start.Add(2*time.Hour)) {
		t.Errorf("shortened to %+v", v.Prefixes)
	}
	if v := at(4 * time.Hour); len(v.Prefixes) != 0 {
		t.Errorf("outlived: %+v", v.Prefixes)
	}
	for i := range 3 * maxEntries { // nor fill the memory
		addr := netip.AddrFrom16([16]byte{0xfe, 0x80, 15: byte(i + 1)})
		add(5*time.Hour, addr, Advert{Lifetime: time.Hour, RDNSS: []Server{{addr, time.Hour}}})
	}
	if v := at(5 * time.Hour); len(v.Routers) != maxRouters || len(v.RDNSS) != maxEntries {
		t.Errorf("%d routers, %d servers", len(v.Routers), len(v.RDNSS))
	}
}

// TestRadvd hears Debian's radvd.
func TestRadvd(t *testing.T) {
	if !nstest.Enter(t, "radvd") {
		return
	}
	outside := nstest.Outside(t)
	outside.Cable("up0", "02:00:00:00:00:01", "r0")
	outside.Sysctl("ipv6/conf/all/forwarding", "1")
	nstest.IP(t, "link", "set", "up0", "up")
	dir := t.TempDir()
	conf := filepath.Join(dir, "radvd.conf")
	if err := os.WriteFile(conf, []byte(`interface r0 { AdvSendAdvert on; AdvOtherConfigFlag on; AdvLinkMTU 1400;
	prefix 2001:db8:7::/64 { AdvValidLifetime 7200; AdvPreferredLifetime 3600; };
	RDNSS 2001:db8:7::53 { AdvRDNSSLifetime 600; };
	DNSSL example.net { }; };`), 0o600); err != nil {
		t.Fatal(err)
	}
	outside.Start("radvd", "-n", "-C", conf, "-p", filepath.Join(dir, "pid"), "-m", "stderr")
	ctx, cancel := context.WithCancel(context.Background())
	got, ended := make(chan *Advert, 10), make(chan error, 1)
	c := &Client{Link: "up0", Clock: clock.System{}, Log: slog.New(slog.DiscardHandler), Silent: func(int) {},
		Heard: func(_ netip.Addr, a *Advert) { got <- a }}
	go func() { ended <- c.Run(ctx) }()
	var a *Advert
	select {
	case a = <-got:
	case err := <-ended:
		t.Fatal(err)
	}
	cancel()
	<-ended
	if !a.Other || a.Managed || a.MTU != 1400 || len(a.Prefixes) != 1 || a.Prefixes[0].Valid != 2*time.Hour || !a.Prefixes[0].Autonomous ||
		len(a.RDNSS) != 1 || a.RDNSS[0].Lifetime != 10*time.Minute || len(a.DNSSL) != 1 || a.DNSSL[0].Name != "example.net" || a.Lifetime == 0 {
		t.Errorf("%+v", a)
	}
}
