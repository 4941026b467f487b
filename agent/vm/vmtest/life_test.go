// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// view is the workload's own account; see the workload's View.
type view struct {
	Args, Env        []string
	Cwd              string
	UID, GID         int
	Groups           []int
	PID, SID         int
	Status           map[string]string
	Hostname, Hosts  string
	Files, Writable  map[string]string
	Devices          []string
	Processes        []string
	Runs             int
	Now              int64
	OpenStdout, Exec string

	Agent, VsockPair, Ring string
}

func (s *suite) version() {
	v, err := s.open().Version(s.ctx())
	s.must(err)
	s.Log(v)
	if !strings.ContainsAny(v, "0123456789") {
		s.Errorf("version %q", v)
	}
}

// life is a whole one: everything that a spec can ask for, with an agent that
// dies in the middle.
func (s *suite) life() {
	cfg := s.config("life")
	tap := newTap(s.T, "zt0", "10.9.0.1/24")
	volume := s.volume()
	cfg.VCPUs = 2
	cfg.NICs = []vm.NIC{{TapName: "zt0", Tap: tap, MAC: "52:54:00:0a:09:02", MTU: 1500}}
	cfg.Disks = append(cfg.Disks, vm.Disk{Path: volume, Serial: "vol-data"})
	m := s.start(cfg)
	m.accept()
	conf := []byte("key = value\n")
	r := m.configure(func(c *wire.Config) {
		c.Files = []wire.File{{Path: "/etc/app/app.conf", Mode: 0o440, UID: 5, GID: 1001, Content: conf}}
		c.Mounts = append(c.Mounts, wire.Mount{Type: "volume", Serial: "vol-data", Path: "/data", Mode: 0o750, UID: 1000, GID: 1001})
		c.Interfaces = []wire.Interface{{MAC: "52:54:00:0a:09:02", Address: "10.9.0.2/24", Gateway: "10.9.0.1", MTU: 1400}}
		c.Process.Args = []string{"app", "serve", "two words"} // by PATH
		c.Process.Cwd, c.Process.UID, c.Process.GID = "/tmp", 1000, 1001
		c.Process.Capabilities = []string{"CAP_NET_BIND_SERVICE"}
		c.Check = wire.Check{Kind: "http", Port: 8080, Path: "/", IntervalMs: 200, TimeoutMs: 5000, DeadlineMs: 60000, Failures: 3}
	})
	s.report(cfg, r, conf)
	s.info(m, cfg)
	m.run()
	m.until("health", func(f wire.Frame) bool { return f.Health != nil && f.Health.OK })
	m.says(described()...)
	s.view(m.stdout.String())
	s.fetch("10.9.0.2:8080")

	second := s.adopt(m)
	s.fetch("10.9.0.2:8080") // the workload did not notice
	second.send(wire.Frame{Stop: &wire.Stop{Reason: "test"}})
	e := second.until("exit", func(f wire.Frame) bool { return f.Exit != nil }).Exit
	second.send(wire.Frame{ExitOK: &wire.ExitOK{}})
	if e.Code != 7 || e.Signal != "" || !e.Requested || e.OOM || e.EndedMs <= e.StartedMs || e.Dropped != 0 {
		s.Errorf("exit %+v", *e)
	}
	if !strings.HasSuffix(second.stdout.String(), "bye\n") {
		s.Errorf("the last output is %q", second.stdout.String())
	}
	second.ended()
}

// report compares the guest's account with what was asked for.
func (s *suite) report(cfg vm.Config, r wire.Report, conf []byte) {
	if r.Cmdline != cfg.Cmdline {
		s.Errorf("command line %q", r.Cmdline)
	}
	if r.Verity.Status != "V" || !strings.Contains(r.Verity.Table, " "+s.Verity+" - 2 panic_on_corruption panic_on_error") {
		s.Errorf("verity %+v", r.Verity)
	}
	sum := sha256.Sum256(conf)
	if want := map[string]string{"/etc/app/app.conf": hex.EncodeToString(sum[:])}; !reflect.DeepEqual(r.Files, want) {
		s.Errorf("files %v", r.Files)
	}
	if want := []string{"52:54:00:0a:09:02 10.9.0.2/24"}; !slices.Equal(r.Addrs, want) {
		s.Errorf("addresses %v", r.Addrs)
	}
	s.Logf("mounts:\n  %s", strings.Join(r.Mounts, "\n  "))
	for _, want := range []string{"/ overlay ro,nodev", "/sys sysfs ro,nosuid,nodev,noexec", "/tmp tmpfs rw,nosuid,nodev,noexec", "/data ext4 rw,nosuid,nodev",
		"/proc/sys proc ro,nosuid,nodev,noexec", "/proc/sysrq-trigger proc ro", "/dev tmpfs ro,nosuid,noexec"} {
		if !slices.ContainsFunc(r.Mounts, func(line string) bool { return strings.HasPrefix(line, want) }) {
			s.Errorf("no mount %q", want)
		}
	}
	for _, line := range r.Mounts {
		if strings.Contains(line, "stage") || strings.HasPrefix(line, "/ rootfs") || strings.Contains(line, "cgroup") {
			s.Errorf("the initramfs shows: %q", line)
		}
	}
}

// info compares what the hypervisor says with what was asked for.
func (s *suite) info(m *machine, cfg vm.Config) {
	got, err := m.vm.Info(s.ctx())
	s.must(err)
	s.Logf("hardening: %v", got.Hardening)
	nics := slices.Clone(cfg.NICs)
	for i := range nics {
		nics[i].Tap = nil
	}
	want := vm.Running{VCPUs: cfg.VCPUs, MemoryMiB: cfg.MemoryMiB, Kernel: cfg.Kernel, Initramfs: cfg.Initramfs, Cmdline: cfg.Cmdline,
		Disks: cfg.Disks, NICs: nics, CID: cfg.CID, Hardening: got.Hardening}
	if !reflect.DeepEqual(got, want) {
		s.Errorf("info\n got %+v\nwant %+v", got, want)
	}
}

// view judges what the workload found.
func (s *suite) view(output string) {
	line, _, _ := strings.Cut(output, "\n")
	var v view
	if err := json.Unmarshal([]byte(line), &v); err != nil {
		s.Fatalf("output %q: %v", output, err)
	}
	const bind = "0000000000000400"
	for what, pair := range map[string][2]any{
		"args": {v.Args, []string{"app", "serve", "two words"}}, "env": {v.Env, []string{"A=1", "PATH=/"}}, "cwd": {v.Cwd, "/tmp"},
		"uid": {v.UID, 1000}, "gid": {v.GID, 1001}, "groups": {len(v.Groups), 0}, "own session": {v.SID, v.PID}, "host name": {v.Hostname, "web"},
		"CapPrm": {v.Status["CapPrm"], bind}, "CapEff": {v.Status["CapEff"], bind}, "CapBnd": {v.Status["CapBnd"], bind},
		"CapInh": {v.Status["CapInh"], bind}, "CapAmb": {v.Status["CapAmb"], bind}, "NoNewPrivs": {v.Status["NoNewPrivs"], "1"},
		"hosts":     {v.Hosts, "127.0.0.1\tlocalhost\n::1\tlocalhost\n10.9.0.2\tweb\n"},
		"conf":      {v.Files["/etc/app/app.conf"], "-r--r----- 5:1001 key = value\n"},
		"hostname":  {v.Files["/etc/hostname"], "-rw-r--r-- 0:0 web\n"},
		"image":     {v.Files["/from-image"], "-rw-r--r-- 0:0 of the image\n"},
		"root":      {v.Writable["/"], "EROFS"},
		"etc":       {v.Writable["/etc"], "EROFS"},
		"dev":       {v.Writable["/dev"], "EROFS"},
		"tmp":       {v.Writable["/tmp"], ""},
		"data":      {v.Writable["/data"], ""},
		"devices":   {v.Devices, []string{"fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom", "zero"}},
		"processes": {v.Processes, []string{fmt.Sprint(v.PID)}},
		"stdout":    {v.OpenStdout, ""}, "exec in tmpfs": {v.Exec, "EACCES"}, "volume is fresh": {v.Runs, 0},
		"line to the agent": {v.Agent, "EAFNOSUPPORT"}, "vsock pair": {v.VsockPair, "EAFNOSUPPORT"}, "io_uring": {v.Ring, "EPERM"},
	} {
		if !reflect.DeepEqual(pair[0], pair[1]) {
			s.Errorf("the workload's %s: %q, want %q", what, pair[0], pair[1])
		}
	}
	for _, name := range []string{"/proc/sys/kernel", "/sys", "/proc/sysrq-trigger"} {
		if v.Writable[name] == "" {
			s.Errorf("the workload can write %s", name)
		}
	}
	if d := time.Since(time.UnixMilli(v.Now)); d.Abs() > 2*time.Minute {
		s.Errorf("the guest's clock is off by %s", d)
	}
}

// fetch reaches the workload over the tap.
func (s *suite) fetch(address string) {
	s.Helper()
	c, err := (&net.Dialer{}).DialContext(s.ctx(), "tcp", address)
	s.must(err)
	_, err = c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	s.must(err)
	b, err := io.ReadAll(c)
	s.must(err)
	s.must(c.Close())
	if !strings.HasSuffix(string(b), "hello") {
		s.Errorf("the workload answers %q", b)
	}
}

// adopt lets the agent die and come back.
func (s *suite) adopt(m *machine) *machine {
	s.Helper()
	m.hangUp()
	second := &machine{suite: s, cfg: m.cfg, driver: s.open()}
	var err error
	second.listener, err = second.driver.Listen(m.cfg, wire.Port)
	s.must(err)
	second.vm, err = second.driver.Adopt(s.ctx(), m.cfg)
	s.must(err)
	s.Cleanup(second.hangUp)
	if second.vm.PID() != m.vm.PID() {
		s.Errorf("adopted process %d, not %d", second.vm.PID(), m.vm.PID())
	}
	second.accept()
	if h := second.hello; !h.Running || h.BootID != m.hello.BootID || h.PublicKey != m.hello.PublicKey {
		s.Errorf("hello of the second connection: %+v, first: %+v", h, m.hello)
	}
	second.send(wire.Frame{Resume: &wire.Resume{OutputFrom: 0}})
	var report, started, health bool
	second.until("all that it said before", func(f wire.Frame) bool {
		report, started, health = report || f.Report != nil, started || f.Started != nil, health || f.Health != nil && f.Health.OK
		return report && started && health
	})
	second.says(described()...)
	if !strings.HasPrefix(second.stdout.String(), `{"Args":["app"`) {
		s.Errorf("output again: %q", second.stdout.String())
	}
	s.info(second, m.cfg)
	// Whoever starts it a second time meanwhile is refused, and harms nothing.
	if again, err := s.open().Start(s.ctx(), m.cfg); err == nil {
		s.Errorf("started twice: %d", again.PID())
	} else {
		s.Logf("a second start: %v", err)
	}
	s.info(second, m.cfg)
	return second
}

// volume is a fresh copy of the formatted disk.
func (s *suite) volume() string {
	s.Helper()
	name := "/run/volume.img"
	s.copyFile(partsDir+"/volume.img", name)
	return name
}

func (s *suite) copyFile(from, to string) {
	s.Helper()
	b, err := os.ReadFile(from)
	s.must(err)
	s.must(os.WriteFile(to, b, 0o600))
}

// powerButton also shows that the volume outlives its VM, and that a check by
// a program works.
func (s *suite) powerButton() {
	volume := s.volume()
	for run := range 2 {
		cfg := s.config("button")
		cfg.Disks = append(cfg.Disks, vm.Disk{Path: volume, Serial: "vol-data"})
		m := s.start(cfg)
		m.accept()
		m.configure(func(c *wire.Config) {
			c.Mounts = append(c.Mounts, wire.Mount{Type: "volume", Serial: "vol-data", Path: "/data", Mode: 0o755})
			c.Check = wire.Check{Kind: "exec", Args: []string{"app", "check"}, IntervalMs: 200, TimeoutMs: 20000, DeadlineMs: 60000, Failures: 3}
		})
		m.run()
		m.until("health", func(f wire.Frame) bool { return f.Health != nil && f.Health.OK })
		m.says(described()...)
		if !strings.Contains(m.output.String(), fmt.Sprintf(`"Runs":%d,`, run)) {
			s.Errorf("run %d: %q", run, m.output.String())
		}
		button, ok := m.vm.(interface {
			PowerButton(context.Context) error
		})
		if !ok {
			s.Fatal("no power button")
		}
		s.must(button.PowerButton(s.ctx()))
		e := m.until("exit", func(f wire.Frame) bool { return f.Exit != nil }).Exit
		m.send(wire.Frame{ExitOK: &wire.ExitOK{}})
		if e.Code != 7 || !e.Requested {
			s.Errorf("exit %+v", *e)
		}
		m.ended()
	}
}
