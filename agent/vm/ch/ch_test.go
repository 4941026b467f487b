// SPDX-License-Identifier: Apache-2.0

package ch

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
)

func config() vm.Config {
	return vm.Config{ID: "7-web", Dir: "/run/zos/vm/7-web", VCPUs: 2, MemoryMiB: 256, Kernel: "/store/k", Initramfs: "/store/i", Cmdline: "quiet zos.verity=ab,1",
		Disks: []vm.Disk{{Path: "/store/root", ReadOnly: true, Serial: "root"}, {Path: "/vol/data", Serial: "vol-data"}},
		NICs:  []vm.NIC{{TapName: "zt0", MAC: "52:54:00:00:00:01", MTU: 1500}, {TapName: "zt1", MAC: "52:54:00:00:00:02", MTU: 1500}}, CID: 5}
}

// The whole command line, as it is: a change here is a change of what runs.
func TestArgs(t *testing.T) {
	want := strings.Split(`--api-socket
fd=3
--event-monitor
path=/run/zos/vm/7-web/events.json
--seccomp
true
--landlock
--landlock-rules
path=/run/zos/vm/7-web/vsock,access=rw
--kernel
/store/k
--initramfs
/store/i
--cmdline
quiet zos.verity=ab,1
--cpus
boot=2,max=2,nested=off
--memory
size=256M,shared=off
--rng
src=/dev/urandom
--vsock
cid=5,socket=/run/zos/vm/7-web/vsock/v.sock
--serial
file=/run/zos/vm/7-web/serial.log
--console
off
--pvpanic
--disk
path=/store/root,readonly=on,image_type=raw,serial=root
path=/vol/data,readonly=off,image_type=raw,serial=vol-data
--net
fd=4,mac=52:54:00:00:00:01
fd=5,mac=52:54:00:00:00:02`, "\n")
	if got := args(config()); !slices.Equal(got, want) {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

func TestRules(t *testing.T) {
	for _, r := range rules("/bin/ch", config()) {
		writable := r.Path == "/run/zos/vm/7-web" || r.Path == "/dev/kvm" || r.Path == "/vol/data"
		if r.Write != writable || r.Exec != (r.Path == "/bin/ch") {
			t.Errorf("%+v", r)
		}
	}
}

func TestParse(t *testing.T) {
	now := time.Unix(1, 0)
	for text, want := range map[string]proc.Parsed{
		`{"timestamp":{"secs":0,"nanos":1},"source":"vm","event":"booted","properties":null}`:               {Booted: true},
		`{"timestamp":{},"source":"guest","event":"panic","properties":{"event":"panic"}}`:                  {Event: vm.Event{Kind: vm.EventPanic, At: now, Detail: "panic"}},
		`{"timestamp":{},"source":"vm","event":"rebooting","properties":null}`:                              {Kill: true, Event: vm.Event{Kind: vm.EventReboot, At: now, Detail: "the guest asked for a reboot"}},
		`{"timestamp":{},"source":"virtio-device","event":"activated","properties":{"id":"_virtio-pci-x"}}`: {},
	} {
		if got, err := parse([]byte(text), now); err != nil || got != want {
			t.Errorf("%s: %+v, %v", text, got, err)
		}
	}
	if _, err := parse([]byte(`[]`), now); err == nil {
		t.Error("a list was accepted")
	}
}

// serve plays Cloud Hypervisor's REST interface.
func serve(t *testing.T, answers map[string]string) *api {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		answer, ok := answers[r.Method+" "+r.URL.Path]
		if !ok {
			w.WriteHeader(http.StatusInternalServerError)
			answer = `["Error from API","The VM could not do it","It is not running"]`
		}
		if _, err := io.WriteString(w, answer); err != nil {
			t.Error(err)
		}
	})}
	go func() {
		if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		if err := server.Close(); err != nil {
			t.Error(err)
		}
	})
	return newAPI(socket)
}

// info is cut from what v53.0 answers.
const info = `{"config":{"cpus":{"boot_vcpus":2,"max_vcpus":2,"topology":null,"nested":false,"core_scheduling":"Vm"},
"memory":{"size":268435456,"mergeable":false,"shared":false,"thp":true},"payload":{"firmware":null,"kernel":"/store/k","cmdline":"quiet","initramfs":"/store/i"},
"disks":[{"path":"/store/root","readonly":true,"serial":"root","image_type":"Raw","id":"_disk0"}],"net":[{"tap":null,"mac":"52:54:00:00:00:01","fds":[4]}],
"vsock":{"cid":5,"socket":"/v.sock","id":"_vsock1"},"pvpanic":true,"landlock_enable":true},"state":"Running","memory_actual_size":268435456,"device_tree":{}}`

func TestAPI(t *testing.T) {
	a := serve(t, map[string]string{"GET /api/v1/vm.info": info, "GET /api/v1/vmm.ping": `{"build_version":"v53.0","version":"53.0.0","pid":7,"features":[]}`,
		"PUT /api/v1/vm.power-button": "", "GET /api/v1/vm.counters": `{"_net2":{"rx_bytes":7}}`})
	if err := a.ping(t.Context()); err != nil {
		t.Error(err)
	}
	got, err := a.info(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := got.Config
	if got.State != "Running" || got.MemorySize != 256<<20 || c.CPUs.Boot != 2 || c.CPUs.Nested || c.Payload.Kernel != "/store/k" || len(c.Disks) != 1 ||
		!c.Disks[0].ReadOnly || c.Disks[0].Serial != "root" || len(c.Net) != 1 || c.Vsock.CID != 5 || !c.PVPanic || !c.Landlock {
		t.Errorf("%+v", got)
	}
	if err := a.powerButton(t.Context()); err != nil {
		t.Error(err)
	}
	if c, err := a.counters(t.Context()); err != nil || c["_net2"]["rx_bytes"] != 7 {
		t.Errorf("%v, %v", c, err)
	}
	refused := serve(t, nil)
	if err := refused.ping(t.Context()); err == nil || !strings.Contains(err.Error(), "The VM could not do it: It is not running") {
		t.Errorf("the body's errors are lost: %v", err)
	}
	if err := refusal("500", []byte("plain text\n")); err.Error() != "500: plain text" {
		t.Errorf("%v", err)
	}
	other := serve(t, map[string]string{"GET /api/v1/vmm.ping": `{}`})
	if err := other.ping(t.Context()); err == nil {
		t.Error("an answer without a version was accepted")
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := a.info(gone); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestListen(t *testing.T) {
	d := New("/none", slog.New(slog.NewTextHandler(io.Discard, nil)))
	cfg := vm.Config{Dir: t.TempDir()}
	for range 2 { // an agent that died leaves its socket behind
		l, err := d.Listen(cfg, 1024)
		if err != nil {
			t.Fatal(err)
		}
		l.(*net.UnixListener).SetUnlinkOnClose(false)
		c, err := net.Dial("unix", filepath.Join(cfg.Dir, "vsock/v.sock_1024"))
		if err = errors.Join(err, l.Close()); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if d.Name() != "cloud-hypervisor" {
		t.Errorf("name %s", d.Name())
	}
	if _, err := d.Version(t.Context()); err == nil {
		t.Error("a program that is not there has a version")
	}
	if _, err := d.Start(t.Context(), vm.Config{}); err == nil {
		t.Error("nothing was started")
	}
	if _, err := d.Adopt(t.Context(), cfg); err == nil {
		t.Error("an empty directory was adopted")
	}
}
