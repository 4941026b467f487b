// SPDX-License-Identifier: Apache-2.0

// Package net gives the guest's network devices their static addresses.
// Devices are found by MAC: the order in which a kernel finds them is no
// promise. Nothing is asked of the network: no DHCP, no router
// advertisements.
package net

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/netlink"
	"github.com/zos-node/zos/guest/wire"
)

// Plan is one device's set-up, parsed.
type Plan struct {
	MAC     net.HardwareAddr
	Address netip.Prefix
	Gateway netip.Addr // invalid: none
	MTU     int
}

// Parse refuses what the kernel would refuse later, or misunderstand.
func Parse(i wire.Interface) (Plan, error) {
	mac, err := net.ParseMAC(i.MAC)
	if err != nil {
		return Plan{}, fmt.Errorf("interface: %w", err)
	}
	p := Plan{MAC: mac, MTU: i.MTU}
	if p.Address, err = netip.ParsePrefix(i.Address); err != nil {
		return Plan{}, fmt.Errorf("interface %s: %w", i.MAC, err)
	}
	if i.Gateway != "" {
		if p.Gateway, err = netip.ParseAddr(i.Gateway); err != nil {
			return Plan{}, fmt.Errorf("interface %s: %w", i.MAC, err)
		}
		if !p.Address.Contains(p.Gateway) {
			return Plan{}, fmt.Errorf("interface %s: gateway %s is not in %s", i.MAC, i.Gateway, i.Address)
		}
	}
	if i.MTU < 576 || i.MTU > 65535 {
		return Plan{}, fmt.Errorf("interface %s: MTU %d", i.MAC, i.MTU)
	}
	return p, nil
}

// Setup brings up loopback and all interfaces. Drivers may still be finding
// their devices, so it waits for a device until ctx ends.
func Setup(ctx context.Context, interfaces []wire.Interface) (err error) {
	c, err := netlink.Open(unix.NETLINK_ROUTE)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	if err := up(c, lo.Index, 0); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	for _, i := range interfaces {
		p, err := Parse(i)
		if err != nil {
			return err
		}
		if err := p.apply(ctx, c); err != nil {
			return fmt.Errorf("interface %s: %w", i.MAC, err)
		}
	}
	return nil
}

func (p Plan) apply(ctx context.Context, c *netlink.Conn) error {
	device, err := find(ctx, p.MAC)
	if err != nil {
		return err
	}
	if err := quiet("/proc/sys/net/ipv6/conf", device.Name, p.Address.Addr().Is4()); err != nil {
		return err
	}
	if err := up(c, device.Index, p.MTU); err != nil {
		return err
	}
	if _, err := c.Do(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.address(device.Index)); err != nil {
		return fmt.Errorf("address %s: %w", p.Address, err)
	}
	if !p.Gateway.IsValid() {
		return nil
	}
	if _, err := c.Do(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_EXCL, p.route(device.Index)); err != nil {
		return fmt.Errorf("gateway %s: %w", p.Gateway, err)
	}
	return nil
}

func find(ctx context.Context, mac net.HardwareAddr) (net.Interface, error) {
	for {
		all, err := net.Interfaces()
		if err != nil {
			return net.Interface{}, err
		}
		for _, i := range all {
			if bytes.Equal(i.HardwareAddr, mac) {
				return i, nil
			}
		}
		select {
		case <-ctx.Done():
			return net.Interface{}, fmt.Errorf("no such device: %w", ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// quiet keeps the device from making addresses of its own; conf is the
// kernel's folder of settings for each device.
func quiet(conf, device string, only4 bool) error {
	settings := map[string]string{"accept_ra": "0", "autoconf": "0"}
	if only4 {
		settings = map[string]string{"disable_ipv6": "1"}
	}
	for name, value := range settings {
		// A kernel without IPv6 has no such file, and is quiet.
		err := os.WriteFile(filepath.Join(conf, device, name), []byte(value), 0)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func up(c *netlink.Conn, index, mtu int) error {
	b := make([]byte, unix.SizeofIfInfomsg)
	n := binary.NativeEndian
	n.PutUint32(b[4:], uint32(index))
	n.PutUint32(b[8:], unix.IFF_UP)
	n.PutUint32(b[12:], unix.IFF_UP)
	if mtu > 0 {
		b = netlink.Attr(b, unix.IFLA_MTU, netlink.Uint32(uint32(mtu)))
	}
	if _, err := c.Do(unix.RTM_NEWLINK, 0, b); err != nil {
		return fmt.Errorf("bring up: %w", err)
	}
	return nil
}

func family(a netip.Addr) byte {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}

// address is a struct ifaddrmsg. Nobody else can have the address, so there
// is no waiting for a duplicate (IPv6).
func (p Plan) address(index int) []byte {
	b := []byte{family(p.Address.Addr()), byte(p.Address.Bits()), unix.IFA_F_NODAD, unix.RT_SCOPE_UNIVERSE, 0, 0, 0, 0}
	if p.Address.Addr().Is4() {
		b[2] = 0
	}
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	ip := p.Address.Addr().AsSlice()
	b = netlink.Attr(b, unix.IFA_LOCAL, ip)
	return netlink.Attr(b, unix.IFA_ADDRESS, ip)
}

// route is a struct rtmsg: everything else goes to the gateway.
func (p Plan) route(index int) []byte {
	b := make([]byte, unix.SizeofRtMsg)
	b[0] = family(p.Gateway)
	b[4], b[5], b[6], b[7] = unix.RT_TABLE_MAIN, unix.RTPROT_STATIC, unix.RT_SCOPE_UNIVERSE, unix.RTN_UNICAST
	b = netlink.Attr(b, unix.RTA_GATEWAY, p.Gateway.AsSlice())
	return netlink.Attr(b, unix.RTA_OIF, netlink.Uint32(uint32(index)))
}

// Addresses reads back what the devices have: "mac address/prefix", sorted,
// without loopback.
func Addresses() ([]string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return nil, fmt.Errorf("addresses: %w", err)
	}
	lines := []string{}
	for _, i := range all {
		if i.Flags&net.FlagLoopback != 0 {
			continue
		}
		addrs, err := i.Addrs()
		if err != nil {
			return nil, fmt.Errorf("addresses of %s: %w", i.Name, err)
		}
		for _, a := range addrs {
			lines = append(lines, i.HardwareAddr.String()+" "+a.String())
		}
	}
	sort.Strings(lines)
	return lines, nil
}

// Hosts is the text of /etc/hosts.
func Hosts(names map[string]string) string {
	var lines []string
	for name, address := range names {
		lines = append(lines, address+"\t"+name+"\n")
	}
	sort.Strings(lines)
	return "127.0.0.1\tlocalhost\n::1\tlocalhost\n" + strings.Join(lines, "")
}
