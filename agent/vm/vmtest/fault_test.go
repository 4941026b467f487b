// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"os"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// outOfMemory: the record says why a process was killed, and a kill of the
// whole VM leaves nothing.
func (s *suite) outOfMemory() {
	m := s.start(s.config("oom"))
	m.accept()
	m.configure(func(c *wire.Config) { c.Process.Args = []string{"/app", "oom"} })
	m.run()
	e := m.until("exit", func(f wire.Frame) bool { return f.Exit != nil }).Exit
	if e.Code != -1 || e.Signal != "SIGKILL" || !e.OOM || e.Requested {
		s.Errorf("exit %+v", *e)
	}
	s.Logf("it got %d pieces of 4 MiB", strings.Count(m.output.String(), "\n"))
	m.killed() // without the acknowledgement: at once
	m.event(vm.EventExit)
}

// noRoot: without a root hash nothing is set up, and the guest says so.
func (s *suite) noRoot() {
	cfg := s.config("noroot")
	cfg.Cmdline = strings.ReplaceAll(cfg.Cmdline, "zos.verity=", "zos.other=")
	m := s.start(cfg)
	m.accept()
	m.send(wire.Frame{Config: &wire.Config{Machine: "x", TimeMs: time.Now().UnixMilli(), Entropy: make([]byte, 32), Check: wire.Check{Kind: "none"},
		Process: wire.Process{Args: []string{"/app"}, StopSignal: "SIGTERM"}}})
	f := m.until("fatal", func(f wire.Frame) bool { return f.Fatal != nil }).Fatal
	if f.Phase != "verity" || !strings.Contains(f.Error, "zos.verity=") {
		s.Errorf("fatal %+v", *f)
	}
	m.hangUp()
	m.ended() // it powers itself off
}

// wrongRoot: with another root hash not even the file system is mounted.
func (s *suite) wrongRoot() {
	cfg := s.config("wrongroot")
	cfg.Cmdline = strings.Replace(cfg.Cmdline, s.Verity, strings.Repeat("ab", 32), 1)
	m := s.start(cfg)
	m.accept()
	m.send(wire.Frame{Config: &wire.Config{Machine: "x", TimeMs: time.Now().UnixMilli(), Entropy: make([]byte, 32), Check: wire.Check{Kind: "none"},
		Process: wire.Process{Args: []string{"/app"}, StopSignal: "SIGTERM"}}})
	m.event(vm.EventPanic)
	m.killed()
	m.event(vm.EventExit)
}

// corruptBlock: one wrong byte in a block that is read only later ends the
// guest at that moment, and an agent that comes too late still hears of it.
func (s *suite) corruptBlock() {
	bad := "/run/bad.img"
	s.copyFile(partsDir+"/root.img", bad)
	f, err := os.OpenFile(bad, os.O_RDWR, 0)
	s.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, s.Marker+100)
	s.must(err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, s.Marker+100)
	s.must(err)
	s.must(f.Close())

	cfg := s.config("corrupt")
	cfg.Disks[0].Path = bad
	m := s.start(cfg)
	m.accept()
	m.configure(func(c *wire.Config) { c.Process.Args = []string{"/app", "read", "/marked"} })
	m.run()
	m.event(vm.EventPanic)

	late := s.open()
	adopted, err := late.Adopt(s.ctx(), cfg)
	s.must(err)
	second := &machine{suite: s, cfg: cfg, driver: late, vm: adopted}
	second.event(vm.EventPanic)
	if strings.Contains(m.output.String(), "read") {
		s.Errorf("the wrong block was read: %q", m.output.String())
	}
	m.hangUp()
	second.killed()
	second.event(vm.EventExit)
	m.event(vm.EventExit) // the first value hears of it too
	s.must(os.Remove(bad))
}

// reboot: a guest that wants to start again is not let.
func (s *suite) reboot() {
	m := s.start(s.config("reboot"))
	m.accept()
	m.configure(func(c *wire.Config) {
		c.Process.Args = []string{"/app", "reboot"}
		c.Process.Capabilities = []string{"CAP_SYS_BOOT"}
	})
	m.run()
	m.event(vm.EventReboot)
	m.hangUp()
	m.ended()
}

// cannotStart: what fails leaves nothing, and says why.
func (s *suite) cannotStart() {
	cfg := s.config("cannot")
	cfg.Kernel = partsDir + "/parts.json"
	v, err := s.open().Start(s.ctx(), cfg)
	if err == nil {
		m := &machine{suite: s, cfg: cfg, vm: v}
		m.killed()
		s.Fatal("a file that is no kernel was started")
	}
	s.Logf("refused: %.300s", err)
	if _, err := os.Stat("/sys/fs/cgroup/zos/cannot"); err == nil {
		s.Error("the cgroup is left")
	}
	entries, err := os.ReadDir(cfg.Dir)
	s.must(err)
	for _, e := range entries {
		if !e.IsDir() {
			s.Errorf("left behind: %s", e.Name())
		}
	}
}
