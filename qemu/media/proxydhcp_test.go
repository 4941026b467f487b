// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
)

// A proxy is a second DHCP server of a machine's network, which gives no
// addresses: it tells firmware that asks for HTTP boot where its file is (UEFI
// 2.10 §24.7: option 60 HTTPClient, option 67 the URL). QEMU's own server does the
// rest, as a site's would.
type proxy struct {
	net    []string // the machine's network, for QEMU
	offers atomic.Int64
}

// The proxy's addresses; 10.0.2.2 is QEMU's.
var (
	proxyIP  = net.IPv4(10, 0, 2, 77)
	proxyMAC = net.HardwareAddr{0x02, 0, 0, 0, 0x5f, 0x77}
)

const (
	headEther, headIP, headUDP = 14, 20, 8
	etherIPv4, protoUDP        = 0x0800, 17
	serverPort, clientPort     = 67, 68
)

// proxyDHCP joins a machine, QEMU's user network and the proxy by a hub.
func proxyDHCP(t *testing.T, url string) *proxy {
	t.Helper()
	dir, err := os.MkdirTemp("", "zos-dhcp") // short: a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	here, there := filepath.Join(dir, "here"), filepath.Join(dir, "qemu")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: here, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{net: []string{
		"-netdev", "user,id=world", "-netdev", "hubport,id=port1,hubid=1,netdev=world",
		"-netdev", "dgram,id=proxy,local.type=unix,local.path=" + there + ",remote.type=unix,remote.path=" + here,
		"-netdev", "hubport,id=port2,hubid=1,netdev=proxy",
		"-netdev", "hubport,id=n0,hubid=1", "-device", "virtio-net-pci,netdev=n0,romfile=,bootindex=0",
	}}
	done := make(chan struct{})
	go func() {
		defer close(done)
		b := make([]byte, 1<<16)
		for {
			n, err := c.Read(b)
			if errors.Is(err, net.ErrClosed) {
				return
			}
			if err != nil {
				continue // the other end is gone for a moment
			}
			if answer := offer(b[:n], url); answer != nil {
				if _, _, err := c.WriteMsgUnix(answer, nil, &net.UnixAddr{Name: there, Net: "unixgram"}); err == nil {
					p.offers.Add(1)
				}
			}
		}
	}()
	t.Cleanup(func() {
		if err := errors.Join(c.Close(), os.RemoveAll(dir)); err != nil {
			t.Error(err)
		}
		<-done
	})
	return p
}

// offer is the frame that answers one, or nil: only what asks for HTTP boot is answered.
func offer(frame []byte, url string) []byte {
	if len(frame) < headEther+headIP || binary.BigEndian.Uint16(frame[12:]) != etherIPv4 {
		return nil
	}
	ip := frame[headEther:]
	head := int(ip[0]&15) * 4
	if ip[9] != protoUDP || len(ip) < head+headUDP || binary.BigEndian.Uint16(ip[head+2:]) != serverPort {
		return nil
	}
	ask, err := dhcpv4.FromBytes(ip[head+headUDP:])
	if err != nil || ask.MessageType() != dhcpv4.MessageTypeDiscover || !strings.HasPrefix(ask.ClassIdentifier(), "HTTPClient") {
		return nil
	}
	answer, err := dhcpv4.NewReplyFromRequest(ask, dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer), dhcpv4.WithServerIP(proxyIP),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(proxyIP)), dhcpv4.WithOption(dhcpv4.OptClassIdentifier("HTTPClient")),
		dhcpv4.WithOption(dhcpv4.OptBootFileName(url)))
	if err != nil {
		return nil
	}
	body := answer.ToBytes()
	b := slices.Concat(frame[6:12], proxyMAC, binary.BigEndian.AppendUint16(nil, etherIPv4))
	b = append(b, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(headIP+headUDP+len(body)))
	b = append(b, 0, 0, 0, 0, 64, protoUDP, 0, 0)
	b = append(b, proxyIP.To4()...)
	b = append(b, net.IPv4bcast.To4()...)
	binary.BigEndian.PutUint16(b[headEther+10:], checksum(b[headEther:]))
	b = binary.BigEndian.AppendUint16(b, serverPort)
	b = binary.BigEndian.AppendUint16(b, clientPort)
	b = binary.BigEndian.AppendUint16(b, uint16(headUDP+len(body)))
	b = append(b, 0, 0) // no checksum: IPv4 allows that
	return append(b, body...)
}

// checksum is that of an IPv4 header (RFC 1071).
func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// TestProxyOffer: only firmware that asks for HTTP boot is answered, in full.
func TestProxyOffer(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 1}
	for class, want := range map[string]bool{"HTTPClient:Arch:00016:UNDI:003001": true, "PXEClient:Arch:00007": false, "": false} {
		ask, err := dhcpv4.NewDiscovery(mac, dhcpv4.WithOption(dhcpv4.OptClassIdentifier(class)))
		if err != nil {
			t.Fatal(err)
		}
		body := ask.ToBytes()
		frame := slices.Concat(net.HardwareAddr{255, 255, 255, 255, 255, 255}, mac, []byte{8, 0, 0x45, 0},
			binary.BigEndian.AppendUint16(nil, uint16(headIP+headUDP+len(body))), []byte{0, 0, 0, 0, 64, protoUDP, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255, 0, clientPort, 0, serverPort},
			binary.BigEndian.AppendUint16(nil, uint16(headUDP+len(body))), []byte{0, 0}, body)
		b := offer(frame, "http://192.0.2.1/node.efi")
		if (b != nil) != want {
			t.Fatalf("%q: answered %v", class, b != nil)
		}
		if b == nil {
			continue
		}
		if !bytes.Equal(b[:6], mac) || checksum(b[headEther:headEther+headIP]) != 0 {
			t.Errorf("to %x, a sum of %x", b[:6], checksum(b[headEther:headEther+headIP]))
		}
		got, err := dhcpv4.FromBytes(b[headEther+headIP+headUDP:])
		if err != nil || got.TransactionID != ask.TransactionID || got.BootFileNameOption() != "http://192.0.2.1/node.efi" || !got.YourIPAddr.IsUnspecified() {
			t.Errorf("%v %v", got, err)
		}
		for n := range frame {
			offer(frame[:n], "http://192.0.2.1/node.efi") // a short one is no panic
		}
	}
}
