// SPDX-License-Identifier: Apache-2.0

package vmtest

import (
	"encoding/json"
	"os"
	"strings"
	"time"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
	"github.com/zos-node/zos/zimage/verity"
)

// attack is one thing that is done to a disk which its guest trusts to be what
// its root hash says.
type attack struct {
	name  string
	alter func(s *suite, disk string)
	while bool   // it runs already, and reads on, past its cache
	says  string // what the guest says where it sees it by itself; "" is a panic
}

// attacks is the table. Nothing of the host's own checks is in the way here:
// what ends the guest is its own kernel.
var attacks = []attack{
	{name: "data byte", alter: func(s *suite, d string) { s.flip(d, s.Marker+100) }},
	{name: "data byte, while it runs", alter: func(s *suite, d string) { s.flip(d, s.Marker+100) }, while: true},
	{name: "hash block", alter: func(s *suite, d string) { s.flip(d, s.hashOf(s.Marker)) }},
	{name: "root of the tree", alter: func(s *suite, d string) { s.flip(d, s.Blocks*verity.BlockSize) }},
	{name: "superblock", alter: func(s *suite, d string) { s.flip(d, 1024) }},
	{name: "truncated file", alter: func(s *suite, d string) { s.must(os.Truncate(d, s.Marker)) }, says: "verity"},
	{name: "truncated file, while it runs", alter: func(s *suite, d string) { s.must(os.Truncate(d, s.Marker&^(1<<16-1))) }, while: true},
	{name: "swapped image", alter: func(s *suite, d string) { s.other(d) }},
	{name: "stale root", alter: func(*suite, string) {}},
}

// hashOf is where the tree has the hash of a data block.
func (s *suite) hashOf(at int64) int64 {
	const perBlock = verity.BlockSize / verity.HashSize
	size := s.Blocks * verity.BlockSize
	level0 := (s.Blocks + perBlock - 1) / perBlock * verity.BlockSize // the last level on the disk
	return size + verity.TreeSize(size) - level0 + at/verity.BlockSize*verity.HashSize
}

func (s *suite) flip(name string, at int64) {
	s.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	s.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	s.must(err)
	_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	s.must(err)
	s.must(f.Close())
}

// other makes the file a disk of the same size, of an image with other bytes.
func (s *suite) other(name string) {
	s.Helper()
	b, err := os.ReadFile(name)
	s.must(err)
	for i := range b {
		b[i] ^= 0x5a
	}
	s.must(os.WriteFile(name, b, 0o600))
}

// attacked does one line of the table.
func (s *suite) attacked(a attack) {
	bad := "/run/attacked.img"
	s.copyFile(partsDir+"/root.img", bad)
	defer func() { s.must(os.Remove(bad)) }()
	cfg := s.config("attacked")
	cfg.Disks[0].Path = bad
	if a.name == "stale root" {
		cfg.Cmdline = strings.Replace(cfg.Cmdline, s.Verity, strings.Repeat("ab", 32), 1)
	}
	if !a.while {
		a.alter(s, bad)
	}
	m := s.start(cfg)
	m.accept()
	config := wire.Config{Machine: "x", TimeMs: time.Now().UnixMilli(), Entropy: make([]byte, 32), Check: wire.Check{Kind: "none"},
		Process: wire.Process{Args: []string{"/app", "again", "/marked"}, StopSignal: "SIGTERM"}}
	m.send(wire.Frame{Config: &config})
	began := time.Now()
	// Until it is over: a report, the process, its output, or the end.
	ended := make(chan vm.Event, 1)
	go func() { ended <- <-m.vm.Events() }()
	frames := make(chan wire.Frame, 64)
	conn := m.conn
	go func() {
		defer close(frames)
		for {
			f, err := wire.ReadFrame(conn)
			if err != nil {
				return
			}
			frames <- f
		}
	}()
	fatal, output, altered := "", "", false
	hear := func(f wire.Frame) {
		switch {
		case f.Report != nil:
			m.send(wire.Frame{Start: &wire.Start{}})
		case f.Fatal != nil:
			fatal = f.Fatal.Phase
		case f.Output != nil:
			output += string(f.Output.Data)
			if a.while && !altered && strings.Contains(output, "<nil>\n") {
				a.alter(s, bad)
				altered = true
			}
			began = time.Now() // a wrong block is read after the last word
		}
	}
	var over vm.Event
	for over.Kind == "" {
		select {
		case f, ok := <-frames:
			if !ok {
				frames = nil
				continue
			}
			hear(f)
		case over = <-ended:
		case <-m.ctx().Done():
			s.Fatalf("the guest goes on; it said %q", output)
		}
	}
	seen := time.Since(began)
	m.must(m.vm.Kill(m.ctx()))
	gone := time.Since(began)
	m.killed()
	if frames != nil { // what was said before the end
		for f := range frames {
			hear(f)
		}
	}
	if a.says == "" && over.Kind != vm.EventPanic || a.says != "" && fatal != a.says {
		s.Errorf("it ended with %s, fatal in %q, want fatal in %q: %s", over.Kind, fatal, a.says, over.Detail)
	}
	if a.while != strings.Contains(output, "\nread ") {
		s.Errorf("it read %q", output)
	}
	since := "it was configured"
	if output != "" {
		since = "the read began"
	}
	s.Logf("ATTACK %-18s %-32s %-6s after %5d ms, VM gone after %5d ms, since %s", s.name, a.name, over.Kind, seen.Milliseconds(), gone.Milliseconds(), since)
}

// answers are what each attempt hears; another one could mean that it was only
// done wrong, as ENOENT does of a path that is not there for anybody. "" is what
// has to work.
var answers = map[string]string{
	"control: a device that a workload has":              "",
	"device-mapper: open its control":                    "ENOENT",
	"device-mapper: make its control, remove the device": "EPERM",
	"disk: open it":                               "ENOENT",
	"disk: make its device, write to it":          "EPERM",
	"verity device: make its device, write to it": "EPERM",
	"memory: make /dev/mem, write to it":          "EPERM",
	"memory: /proc/kcore":                         "EOF",
	"ports: iopl":                                 "EPERM",
	"sysrq":                                       "EROFS",
	"sysctl: panic_on_oops off":                   "EROFS",
	"sysctl: core_pattern":                        "EROFS",
	"sysfs: disk's cache":                         "EROFS",
	"sysfs: suspend":                              "EROFS",
	"module: load one":                            "EPERM",
	"module: unload dm_verity":                    "EPERM",
	"kernel: kexec another":                       "EPERM",
	"kernel: load a BPF program":                  "EPERM",
	"root: remount it writable":                   "EPERM",
	"root: unmount it":                            "EPERM",
	"root: mount over it":                         "EPERM",
	"root: mount a devtmpfs":                      "EPERM",
	"root: write a file of it":                    "EROFS",
	"root: another by pivot_root":                 "EPERM",
	"sysctl: remount /proc/sys writable":          "EPERM",
	"code: run it from a tmpfs":                   "EACCES",
	"PID 1: its root":                             "EACCES",
	"PID 1: its memory":                           "EACCES",
	"PID 1: trace it":                             "EPERM",
	"name space: a new user, then device-mapper":  "EPERM",
}

// fromInside has root, with all capabilities that are not the guest's kernel, try to switch the check
// off, and then shows that it is on: a wrong block ends the guest as ever.
func (s *suite) fromInside(capabilities []string) {
	bad := "/run/inside.img"
	s.copyFile(partsDir+"/root.img", bad)
	defer func() { s.must(os.Remove(bad)) }()
	s.flip(bad, s.Marker+100)
	cfg := s.config("inside")
	cfg.Disks[0].Path = bad
	m := s.start(cfg)
	m.accept()
	m.configure(func(c *wire.Config) {
		c.Process.Args = []string{"/app", "attack", "/marked"}
		c.Process.Capabilities = capabilities
		c.Mounts[0].SizeMiB = 32
	})
	m.run()
	m.says("]\n")
	var tried []struct{ What, Answer string }
	line, _, _ := strings.Cut(m.stdout.String(), "\n")
	s.must(json.Unmarshal([]byte(line), &tried))
	if len(tried) != len(answers) {
		s.Errorf("it tried %d things, of %d", len(tried), len(answers))
	}
	for _, a := range tried {
		s.Logf("INSIDE %-18s %2d capabilities: %-55s %s", s.name, len(capabilities), a.What, a.Answer)
		want, known := answers[a.What]
		if len(capabilities) > 0 && want == "EPERM" && strings.Contains(a.What, "make ") {
			want = "EACCES" // who may make a device may still not open one on a mount without devices
		}
		if !known || a.Answer != want {
			s.Errorf("%s: %q, want %q", a.What, a.Answer, want)
		}
	}
	m.event(vm.EventPanic)
	if strings.Contains(m.stdout.String(), "\nread") {
		s.Error("the wrong block was read")
	}
	m.hangUp()
	m.killed()
}
