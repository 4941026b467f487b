// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/qemu"
)

// wires are cables of a machine whose other ends are in this process: a frame is
// a datagram of a socket in a folder.
type wires struct {
	t   *testing.T
	dir string
	net []string // QEMU's options so far
}

func newWires(t *testing.T) *wires {
	t.Helper()
	dir, err := os.MkdirTemp("", "zos-wire") // short: a socket's path has at most 108 bytes
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	return &wires{t: t, dir: dir}
}

// end is ours of one cable.
type end struct {
	*net.UnixConn
	there *net.UnixAddr
}

// Write loses what nobody is there for yet.
func (e end) Write(b []byte) (int, error) {
	n, _, err := e.WriteMsgUnix(b, nil, e.there)
	return n, err
}

// Read goes on when the other end is gone for a moment.
func (e end) Read(b []byte) (int, error) {
	for {
		n, err := e.UnixConn.Read(b)
		if err == nil || errors.Is(err, net.ErrClosed) || errors.Is(err, io.EOF) {
			return n, err
		}
	}
}

// cable lays one to the network id of the machine.
func (w *wires) cable(id string) io.ReadWriteCloser {
	w.t.Helper()
	here, there := filepath.Join(w.dir, id), filepath.Join(w.dir, id+".qemu")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: here, Net: "unixgram"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.net = append(w.net, "-netdev", "dgram,id="+id+",local.type=unix,local.path="+there+",remote.type=unix,remote.path="+here)
	return end{c, &net.UnixAddr{Name: there, Net: "unixgram"}}
}

// card puts one into the machine, on a cable. Linux takes only cards that name
// their speed for LACP.
func (w *wires) card(id string) io.ReadWriteCloser {
	w.t.Helper()
	c := w.cable(id)
	w.net = append(w.net, "-device", "virtio-net-pci,romfile=,speed=1000,duplex=full,id=card-"+id+",netdev="+id)
	return c
}

// outside is a cable to QEMU's user network, where this machine is
// ledgerproc.Gateway.
func (w *wires) outside() io.ReadWriteCloser {
	w.t.Helper()
	c := w.cable("outside")
	w.net = append(w.net, "-netdev", "user,id=world", "-netdev", "hubport,id=port1,hubid=1,netdev=world", "-netdev", "hubport,id=port2,hubid=1,netdev=outside")
	return c
}

// with adds the cables to a machine.
func (w *wires) with(o qemu.Options) qemu.Options {
	o.Net = w.net
	return o
}
