// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Up makes the bridges and taps of a plan. What is there already and right
// stays as it is, so that it serves for adoption too.
func (p *Plan) Up() error {
	for key, value := range map[string]string{
		"net/ipv4/ip_forward": "1",
		// Where br_netfilter is there, frames between two members would meet
		// the rules for forwarding; "bridge zos" judges them already.
		"net/bridge/bridge-nf-call-iptables":  "0",
		"net/bridge/bridge-nf-call-ip6tables": "0",
		"net/bridge/bridge-nf-call-arptables": "0",
	} {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}
	for _, n := range p.Networks {
		if err := n.up(); err != nil {
			return fmt.Errorf("network %s: %w", n.Name, err)
		}
	}
	return nil
}

func (n Network) up() error {
	hw, err := net.ParseMAC(n.MAC)
	if err != nil {
		return fmt.Errorf("bridge %s: %w", n.Bridge, err)
	}
	br, err := netlink.LinkByName(n.Bridge)
	if isMissing(err) {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU, attrs.HardwareAddr = n.Bridge, n.MTU, hw
		if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
			return fmt.Errorf("make bridge %s: %w", n.Bridge, err)
		}
		br, err = netlink.LinkByName(n.Bridge)
	}
	if err != nil {
		return fmt.Errorf("find bridge %s: %w", n.Bridge, err)
	}
	if br.Type() != "bridge" {
		return fmt.Errorf("%s is a %s, want a bridge", n.Bridge, br.Type())
	}
	for key, value := range map[string]string{
		"net/ipv6/conf/" + n.Bridge + "/disable_ipv6":     "1",
		"net/ipv4/conf/" + n.Bridge + "/rp_filter":        "1",
		"net/ipv4/conf/" + n.Bridge + "/accept_redirects": "0",
		"net/ipv4/conf/" + n.Bridge + "/send_redirects":   "0",
		// Without it the node would answer ARP for its uplink's address too.
		"net/ipv4/conf/" + n.Bridge + "/arp_ignore": "1",
	} {
		if err := sysctl(key, value); err != nil {
			return err
		}
	}
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: n.Host.Addr().AsSlice(), Mask: net.CIDRMask(n.Host.Bits(), 8*ipLen)}}
	if err := netlink.AddrReplace(br, addr); err != nil {
		return fmt.Errorf("address %s on %s: %w", n.Host, n.Bridge, err)
	}
	if err := netlink.LinkSetUp(br); err != nil {
		return fmt.Errorf("set %s up: %w", n.Bridge, err)
	}
	for _, t := range n.Taps {
		if err := t.up(br); err != nil {
			return err
		}
		if err := t.known(br); err != nil {
			return err
		}
	}
	return nil
}

// known tells the node which hardware address a guest has: the plan says it,
// so nobody is asked. A question that nobody answers while the guest boots
// would also hold its first callers up for seconds.
func (t Tap) known(br netlink.Link) error {
	hw, err := net.ParseMAC(t.MAC)
	if err != nil {
		return fmt.Errorf("tap %s: %w", t.Name, err)
	}
	n := &netlink.Neigh{LinkIndex: br.Attrs().Index, Family: unix.AF_INET, State: netlink.NUD_PERMANENT, IP: t.Address.AsSlice(), HardwareAddr: hw}
	if err := netlink.NeighSet(n); err != nil {
		return fmt.Errorf("neighbour %s of %s: %w", t.Address, br.Attrs().Name, err)
	}
	return nil
}

func (t Tap) up(br netlink.Link) error {
	link, err := netlink.LinkByName(t.Name)
	if isMissing(err) {
		if err := makeTap(t.Name); err != nil {
			return err
		}
		link, err = netlink.LinkByName(t.Name)
	}
	if err != nil {
		return fmt.Errorf("find tap %s: %w", t.Name, err)
	}
	return join(link, br)
}

// join puts a link into a bridge and sets it up; the node itself speaks
// nothing on it.
func join(link, br netlink.Link) error {
	name := link.Attrs().Name
	if err := sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetMTU(link, br.Attrs().MTU); err != nil {
		return fmt.Errorf("MTU of %s: %w", name, err)
	}
	if err := netlink.LinkSetMasterByIndex(link, br.Attrs().Index); err != nil {
		return fmt.Errorf("put %s into %s: %w", name, br.Attrs().Name, err)
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}

// Down takes all links of a plan away and forgets its connections, so that a
// later deployment with the same addresses inherits none. What is gone
// already is no error.
func (p *Plan) Down() error {
	var errs []error
	for _, n := range p.Networks {
		for _, t := range n.Taps {
			errs = append(errs, remove(t.Name))
		}
		errs = append(errs, remove(n.Bridge))
		subnet := &net.IPNet{IP: n.Host.Masked().Addr().AsSlice(), Mask: net.CIDRMask(n.Host.Bits(), 8*ipLen)}
		errs = append(errs, forget(subnet))
	}
	return errors.Join(errs...)
}

// inSubnet selects connections with either end in a subnet, in either
// direction: translated ones show the machine only in the reply.
type inSubnet struct{ net *net.IPNet }

func (s inSubnet) MatchConntrackFlow(f *netlink.ConntrackFlow) bool {
	return s.net.Contains(f.Forward.SrcIP) || s.net.Contains(f.Forward.DstIP) ||
		s.net.Contains(f.Reverse.SrcIP) || s.net.Contains(f.Reverse.DstIP)
}

func forget(subnet *net.IPNet) error {
	if _, err := netlink.ConntrackDeleteFilters(netlink.ConntrackTable, unix.AF_INET, inSubnet{subnet}); err != nil {
		return fmt.Errorf("forget connections of %s: %w", subnet, err)
	}
	return nil
}

func remove(name string) error {
	link, err := netlink.LinkByName(name)
	if isMissing(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find %s: %w", name, err)
	}
	if err := netlink.LinkDel(link); err != nil {
		return fmt.Errorf("remove %s: %w", name, err)
	}
	return nil
}

func isMissing(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.As(err, &nf)
}

const tunPath = "/dev/net/tun"

// Open opens the tap for a hypervisor: raw frames, each behind a virtio-net
// header, which is what both drivers expect of an inherited descriptor.
func (t Tap) Open() (*os.File, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunPath, err)
	}
	f := os.NewFile(uintptr(fd), t.Name)
	ifr, err := unix.NewIfreq(t.Name)
	if err == nil {
		ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("attach to tap %s: %w", t.Name, err), f.Close())
	}
	return f, nil
}

// makeTap makes a tap that stays without an opener: a VM that dies must not
// take the interface away under the rules that name it.
func makeTap(name string) error {
	f, err := Tap{Name: name}.Open()
	if err != nil {
		return err
	}
	if err := unix.IoctlSetInt(int(f.Fd()), unix.TUNSETPERSIST, 1); err != nil {
		return errors.Join(fmt.Errorf("keep tap %s: %w", name, err), f.Close())
	}
	return f.Close()
}

// sysctl writes a kernel parameter. One that the kernel does not have (no
// IPv6, say) needs no setting.
func sysctl(key, value string) error {
	err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("set %s to %s: %w", key, value, err)
	}
	return nil
}
