// SPDX-License-Identifier: Apache-2.0

package media

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/uplink/nstest"
	"github.com/zos-node/zos/image"
)

// A site is a machine's network as an operator has it: Debian's dnsmasq in a
// network namespace gives addresses and serves a folder by TFTP to firmware that
// asks for PXE. Nothing of it is QEMU's.
type site struct {
	net []string // the machine's network, for QEMU
	log string   // what dnsmasq says
}

// siteConfig is dnsmasq's: the architectures are those of RFC 4578 as IANA keeps
// them, 7 and 9 for x86-64 UEFI, 11 for arm64 UEFI.
const siteConfig = `
port=0
interface=site0
bind-interfaces
dhcp-range=10.77.0.10,10.77.0.99,1h
dhcp-match=set:uefi,option:client-arch,7
dhcp-match=set:uefi,option:client-arch,9
dhcp-match=set:uefi,option:client-arch,11
dhcp-boot=tag:uefi,` + image.NetbootUKI + `
enable-tftp
log-dhcp
user=root
pid-file
`

// startSite makes the namespace with its server, and joins the machine to it by a
// pair of datagram sockets, so that QEMU itself stays outside.
func startSite(t *testing.T, folder string) *site {
	t.Helper()
	outside := nstest.Outside(t, "dnsmasq")
	dir, err := os.MkdirTemp("", "zos-site") // short: a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	var tap *os.File
	outside.Do(func() (err error) {
		tap, err = openTap("site0")
		return err
	})
	outside.IP("address", "add", "10.77.0.1/24", "dev", "site0")
	outside.IP("link", "set", "site0", "up")

	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "qemu")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: here, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	frames(t, tap, c, &net.UnixAddr{Name: there, Net: "unixgram"})

	config, log := filepath.Join(dir, "dnsmasq.conf"), filepath.Join(dir, "log")
	if err := os.WriteFile(config, []byte(siteConfig), 0o600); err != nil {
		t.Fatal(err)
	}
	outside.Start("dnsmasq", "--keep-in-foreground", "--conf-file="+config, "--tftp-root="+folder, "--log-facility="+log, "--dhcp-leasefile="+filepath.Join(dir, "leases"))
	return &site{
		net: []string{
			"-netdev", "dgram,id=n0,local.type=unix,local.path=" + there + ",remote.type=unix,remote.path=" + here,
			"-device", "virtio-net-pci,netdev=n0,romfile=,bootindex=0",
		},
		log: log,
	}
}

// served checks that the machine had its lease and the whole image from dnsmasq.
func (s *site) served(t *testing.T) {
	t.Helper()
	b, err := os.ReadFile(s.log)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{`DHCPACK\(site0\) 10\.77\.0\.\d+ `, `sent \S*` + regexp.QuoteMeta(image.NetbootUKI) + ` to 10\.77\.0\.`} {
		if !regexp.MustCompile(line).Match(b) {
			t.Errorf("dnsmasq did not say %s: the boot came from elsewhere:\n%s", line, tail(string(b), 30))
		}
	}
}

func tail(text string, n int) string {
	lines := strings.Split(text, "\n")
	return strings.Join(lines[max(0, len(lines)-n):], "\n")
}

// frames carries Ethernet frames between a tap and QEMU until the test ends.
func frames(t *testing.T, tap *os.File, c *net.UnixConn, qemu *net.UnixAddr) {
	t.Helper()
	out, in := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(out)
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err == nil { // else the other end is gone for a moment
				_, err = tap.Write(b[:n])
			}
			if errors.Is(err, os.ErrClosed) {
				return
			}
		}
	}()
	go func() {
		defer close(in)
		b := make([]byte, 1<<16)
		for {
			n, err := tap.Read(b)
			if err != nil {
				return
			}
			// Before QEMU listens and after it has ended, a frame is lost, as on a cable.
			if _, _, err := c.WriteMsgUnix(b[:n], nil, qemu); errors.Is(err, net.ErrClosed) {
				return
			}
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), tap.Close()); err != nil {
			t.Error(err)
		}
		<-out
		<-in
	})
}

// openTap makes a tap in the namespace of the thread; it goes with its file.
func openTap(name string) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	r, err := unix.NewIfreq(name)
	if err == nil {
		r.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, r)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("make tap %s: %w", name, err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), name), nil
}
