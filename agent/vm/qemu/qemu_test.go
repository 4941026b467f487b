// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func config() vm.Config {
	return vm.Config{ID: "7-web", Dir: "/run/zos/vm/7-web", VCPUs: 2, MemoryMiB: 256, Kernel: "/store/k", Initramfs: "/store/i", Cmdline: "quiet zos.verity=ab,1",
		Disks: []vm.Disk{{Path: "/store/root", ReadOnly: true, Serial: "root"}, {Path: "/vol/data", Serial: "vol-data"}},
		NICs:  []vm.NIC{{TapName: "zt0", MAC: "52:54:00:00:00:01", MTU: 1500}}, CID: 5}
}

// The whole command line, as it is: a change here is a change of what runs.
func TestArgs(t *testing.T) {
	want := strings.Split(`-M
microvm,acpi=on,rtc=on,pcie=on
-accel
kvm
-cpu
host,vmx=off,svm=off
-smp
cpus=2,maxcpus=2
-m
size=256M
-nodefaults
-no-user-config
-display
none
-sandbox
on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny
-kernel
/store/k
-initrd
/store/i
-append
quiet zos.verity=ab,1
-action
reboot=shutdown,shutdown=poweroff,panic=pause
-chardev
file,id=events,path=/run/zos/vm/7-web/events.json,input-path=/run/zos/vm/7-web/qmp.in
-mon
chardev=events,mode=control
-chardev
socket,id=qmp,fd=3,server=on,wait=off
-mon
chardev=qmp,mode=control
-chardev
file,id=serial,path=/run/zos/vm/7-web/serial.log
-serial
chardev:serial
-device
virtio-rng-pci
-device
pvpanic-pci
-device
vhost-vsock-pci,id=vsock,guest-cid=5
-L
/firmware
-blockdev
driver=raw,node-name=disk0,read-only=on,auto-read-only=off,discard=unmap,file.driver=file,file.filename=/store/root
-device
virtio-blk-pci,id=disk0-dev,drive=disk0,serial=root
-blockdev
driver=raw,node-name=disk1,read-only=off,auto-read-only=off,discard=unmap,file.driver=file,file.filename=/vol/data
-device
virtio-blk-pci,id=disk1-dev,drive=disk1,serial=vol-data
-netdev
tap,id=tap0,fd=4
-device
virtio-net-pci,id=nic0,netdev=tap0,mac=52:54:00:00:00:01,romfile=`, "\n")
	got := args(config(), "/firmware")
	if !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
	if !sandboxed(got) || sandboxed([]string{"-sandbox"}) || sandboxed([]string{"-sandbox", "off"}) || sandboxed(nil) {
		t.Error("the sandbox is not told from its absence")
	}
}

func TestRules(t *testing.T) {
	for _, r := range rules("/bin/q", "", config()) {
		writable := slices.Contains([]string{"/run/zos/vm/7-web", "/dev/kvm", "/dev/vhost-vsock", "/dev/null", "/vol/data"}, r.Path)
		if r.Write != writable || r.Write && r.Exec {
			t.Errorf("%+v", r)
		}
	}
}

func TestParse(t *testing.T) {
	now := time.Unix(1, 0)
	for text, want := range map[string]proc.Parsed{
		`{"QMP":{"version":{},"capabilities":[]}}`: {},
		`{"return":{}}`: {},
		`{"timestamp":{"seconds":1},"event":"GUEST_PANICKED","data":{"action":"pause"}}`:                      {Event: vm.Event{Kind: vm.EventPanic, At: now, Detail: "pause"}},
		`{"timestamp":{"seconds":1},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-reset"}}`:         {Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest asked for a reboot"}},
		`{"timestamp":{"seconds":1},"event":"SHUTDOWN","data":{"guest":true,"reason":"guest-shutdown"}}`:      {},
		`{"timestamp":{"seconds":1},"event":"RESET","data":{"guest":true,"reason":"guest-reset"}}`:            {Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest was reset"}},
		`{"timestamp":{"seconds":1},"event":"NIC_RX_FILTER_CHANGED","data":{"path":"/machine/peripheral/n"}}`: {},
	} {
		if got, err := parse([]byte(text), now); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	for _, bad := range []string{`[]`, `{"error":{"class":"GenericError","desc":"no"}}`} {
		if _, err := parse([]byte(bad), now); err == nil {
			t.Errorf("%s was accepted", bad)
		}
	}
}

// monitor plays QEMU: each command has one answer.
func monitor(t *testing.T, answer func(command string, args map[string]string) string) *Machine {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, `{"QMP":{"version":{},"capabilities":["oob"]}}`)
			for s := bufio.NewScanner(c); s.Scan(); {
				var q struct {
					Execute   string
					Arguments map[string]string
				}
				if err := json.Unmarshal(s.Bytes(), &q); err != nil {
					t.Error(err)
				}
				fmt.Fprintln(c, `{"timestamp":{},"event":"NOISE","data":{}}`)
				if q.Execute == "qmp_capabilities" {
					fmt.Fprintln(c, `{"return":{}}`)
					continue
				}
				fmt.Fprintln(c, answer(q.Execute, q.Arguments))
			}
			if err := c.Close(); err != nil {
				t.Error(err)
			}
		}
	}()
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
		<-done
	})
	return &Machine{socket: socket}
}

func TestInfo(t *testing.T) {
	properties := map[string]string{"/machine kernel": `"/store/k"`, "/machine initrd": `"/store/i"`, "/machine append": `"quiet"`,
		"/machine/peripheral/disk0-dev serial": `"root"`, "/machine/peripheral/nic0 mac": `"52:54:00:00:00:0A"`, "/machine/peripheral/vsock guest-cid": `5`}
	extra := ""
	m := monitor(t, func(command string, args map[string]string) string {
		answers := map[string]string{
			"query-status":              `{"status":"running","running":true}`,
			"query-cpus-fast":           `[{"cpu-index":0},{"cpu-index":1}]`,
			"query-memory-size-summary": `{"base-memory":268435456,"plugged-memory":0}`,
			"qom-list":                  `[{"name":"type","type":"string"},{"name":"disk0-dev","type":"child<virtio-blk-pci>"},{"name":"nic0","type":"child<virtio-net-pci>"},{"name":"vsock","type":"child<vhost-vsock-pci>"}` + extra + `]`,
			"query-block":               `[{"qdev":"/machine/peripheral/disk0-dev/virtio-backend","inserted":{"file":"/store/root","ro":true,"drv":"raw"}}]`,
			"qom-get":                   properties[args["path"]+" "+args["property"]],
		}
		if answers[command] == "" {
			return `{"error":{"class":"CommandNotFound","desc":"no ` + command + `"}}`
		}
		return `{"return":` + answers[command] + `}`
	})
	var r vm.Running
	if err := m.ask(t.Context(), func(q *qmp) error { return m.read(q, &r) }); err != nil {
		t.Fatal(err)
	}
	want := vm.Running{VCPUs: 2, MemoryMiB: 256, Kernel: "/store/k", Initramfs: "/store/i", Cmdline: "quiet", CID: 5,
		Disks: []vm.Disk{{Path: "/store/root", ReadOnly: true, Serial: "root"}}, NICs: []vm.NIC{{MAC: "52:54:00:00:00:0a"}}}
	if fmt.Sprintf("%+v", r) != fmt.Sprintf("%+v", want) {
		t.Errorf("got %+v", r)
	}
	extra = `,{"name":"x","type":"child<e1000>"}`
	if err := m.ask(t.Context(), func(q *qmp) error { return m.read(q, &vm.Running{}) }); err == nil || !strings.Contains(err.Error(), "e1000") {
		t.Errorf("a device that nobody asked for: %v", err)
	}
	if err := m.PowerButton(t.Context()); err == nil || !strings.Contains(err.Error(), "no system_powerdown") {
		t.Errorf("QEMU's own words are lost: %v", err)
	}
}

// A monitor that never answers ends with the context.
func TestAskEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	m := monitor(t, func(string, map[string]string) string { cancel(); return "" })
	if _, err := m.status(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

type cidAddr uint32

func (cidAddr) Network() string  { return "test" }
func (a cidAddr) String() string { return fmt.Sprint(uint32(a)) }

// guestConn is a connection that says whom it is from.
type guestConn struct {
	net.Conn
	cid    uint32
	closed chan struct{}
}

func (c guestConn) RemoteAddr() net.Addr { return cidAddr(c.cid) }
func (c guestConn) Close() error         { close(c.closed); return nil }

type fakeListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func (l *fakeListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}
func (l *fakeListener) Close() error   { close(l.closed); return nil }
func (l *fakeListener) Addr() net.Addr { return cidAddr(2) }

func TestDemux(t *testing.T) {
	d := newDemux(quiet())
	var opened []*fakeListener
	d.open = func(uint32) (net.Listener, error) {
		l := &fakeListener{conns: make(chan net.Conn), closed: make(chan struct{})}
		opened = append(opened, l)
		return l, nil
	}
	d.cid = func(c net.Conn) (uint32, error) { return uint32(c.RemoteAddr().(cidAddr)), nil }
	three, err := d.listen(3, 1024)
	if err != nil {
		t.Fatal(err)
	}
	four, err := d.listen(4, 1024)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.listen(3, 1024); err == nil {
		t.Error("one guest, two listeners")
	}
	dial := func(cid uint32) guestConn {
		c := guestConn{cid: cid, closed: make(chan struct{})}
		opened[0].conns <- c
		return c
	}
	dial(4)
	stranger := dial(9)
	<-stranger.closed
	dial(3)
	for want, l := range map[string]net.Listener{"3": three, "4": four} {
		if c, err := l.Accept(); err != nil || c.RemoteAddr().String() != want {
			t.Errorf("%v, %v; want %s", c, err, want)
		}
	}
	// One guest that floods is cut off; the other is not affected.
	var last guestConn
	for range backlog + 1 {
		last = dial(3)
	}
	<-last.closed
	dial(4)
	if _, err := four.Accept(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := three.Close(); err != nil {
			t.Error(err)
		}
	}
	if _, err := three.Accept(); err == nil {
		if _, err = three.Accept(); err == nil {
			t.Error("accepts after its end")
		}
	}
	if err := four.Close(); err != nil {
		t.Error(err)
	}
	<-opened[0].closed // the last one closes the shared listener
	again, err := d.listen(3, 1024)
	if err != nil || len(opened) != 2 {
		t.Fatalf("%v, %d opened", err, len(opened))
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}
