// SPDX-License-Identifier: Apache-2.0

// Command reader is the init of the guest in which `make bench BENCH=image`
// measures reads: it reads each of its disks as it is, and through dm-verity as
// a workload's root is read, in turn, and prints what it took. Last it reads a
// block that is wrong, which ends the machine. No image of ours contains it.
package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/verity"
)

// job is what the command line asks for, as JSON in the word bench=.
type job struct {
	Disks  []string `json:"disks"`  // serials, in the order of the turns
	Bytes  int64    `json:"bytes"`  // of a sequential read, from the disk's start
	Random int      `json:"random"` // reads of 4 KiB within these bytes
	Rounds int      `json:"rounds"`
	Wrong  int64    `json:"wrong"` // where the disk of that name has a wrong block
}

// said is one line of the console, behind "READ ".
type said struct {
	Disk string `json:"disk"`
	How  string `json:"how"`  // "bare", "verity", "generic"
	Kind string `json:"kind"` // "sequential", "again", "random"
	Ns   int64  `json:"ns"`
}

// way is a device to read a disk by.
type way struct{ disk, how, device string }

const (
	block     = verity.BlockSize
	piece     = 1 << 20 // of a sequential read
	rereads   = 5       // a few milliseconds each
	diskWait  = time.Minute
	wrongDisk = "wrong"
)

func main() {
	if err := run(); err != nil {
		fmt.Println("READER FAILED", err)
	}
	unix.Sync()
	time.Sleep(100 * time.Millisecond) // the serial port has to get rid of the line
	if err := unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF); err != nil {
		fmt.Println(err)
	}
}

func run() error {
	for _, m := range [][2]string{{"/proc", "proc"}, {"/sys", "sysfs"}, {"/dev", "devtmpfs"}} {
		if err := os.MkdirAll(m[0], 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m[1], m[0], m[1], 0, ""); err != nil {
			return fmt.Errorf("mount %s: %w", m[0], err)
		}
	}
	cmdline, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return err
	}
	params, err := verity.ParseCmdline(string(cmdline))
	if err != nil {
		return err
	}
	var j job
	for _, w := range strings.Fields(string(cmdline)) {
		if text, ok := strings.CutPrefix(w, "bench="); ok {
			err = json.Unmarshal([]byte(text), &j)
		}
	}
	if err != nil || len(j.Disks) == 0 {
		return fmt.Errorf("command line %q: %w", cmdline, err)
	}
	ways, wrong, err := devices(j, params)
	if err != nil {
		return err
	}
	for round := range j.Rounds {
		for _, w := range ways {
			if err := measure(j, uint64(round), w); err != nil {
				return err
			}
		}
	}
	f, err := os.OpenFile(wrong, os.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return err
	}
	fmt.Println("WRONG")
	n, err := f.ReadAt(aligned(), j.Wrong)
	return fmt.Errorf("a wrong block was read: %d bytes, %w", n, err)
}

// devices makes them. A device hashes for good with what the kernel had when it
// was made: the first is made before what a processor has for SHA-256 is loaded,
// so that one can see what that is worth.
func devices(j job, params verity.Params) (ways []way, wrong string, err error) {
	fast := func(name string) bool { return strings.Contains(name, "-sha2") }
	if err := load(func(name string) bool { return !fast(name) }); err != nil {
		return nil, "", err
	}
	at := map[string]string{}
	for _, serial := range slices.Concat(j.Disks, []string{wrongDisk}) {
		if at[serial], err = find(serial); err != nil {
			return nil, "", err
		}
	}
	add := func(serial, how string) error {
		device, _, err := verity.Open("/dev", how+serial, at[serial], params)
		ways = append(ways, way{serial, how, device})
		return err
	}
	if err := add(j.Disks[0], "generic"); err != nil {
		return nil, "", err
	}
	before := driver()
	if err := load(fast); err != nil {
		return nil, "", err
	}
	for _, serial := range j.Disks {
		ways = append(ways, way{serial, "bare", at[serial]})
		if err := add(serial, "verity"); err != nil {
			return nil, "", err
		}
	}
	fmt.Println("SHA256", driver(), "generic:", before)
	wrong, _, err = verity.Open("/dev", wrongDisk, at[wrongDisk], params)
	return ways, wrong, err
}

// load loads the modules whose names want takes.
func load(want func(name string) bool) error {
	for _, stage := range []string{"line", "root", "late"} {
		files, err := filepath.Glob("/modules/" + stage + "/*.ko")
		if err != nil {
			return err
		}
		slices.Sort(files)
		for _, name := range files {
			if !want(name) {
				continue
			}
			f, err := os.Open(name)
			if err != nil {
				return err
			}
			err = unix.FinitModule(int(f.Fd()), "", 0)
			if errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENODEV) {
				err = nil
			}
			if err = errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("load %s: %w", name, err)
			}
		}
	}
	return nil
}

// find finds a disk by its serial.
func find(serial string) (string, error) {
	for end := time.Now().Add(diskWait); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		names, err := filepath.Glob("/sys/block/*/serial")
		if err != nil {
			return "", err
		}
		for _, name := range names {
			if b, err := os.ReadFile(name); err == nil && strings.TrimSpace(string(b)) == serial {
				return "/dev/" + filepath.Base(filepath.Dir(name)), nil
			}
		}
	}
	return "", fmt.Errorf("no disk %q", serial)
}

// driver is what the kernel hashes with: the one of the highest priority.
func driver() string {
	text, err := os.ReadFile("/proc/crypto")
	if err != nil {
		return err.Error()
	}
	best, most := "none", -1
	for entry := range strings.SplitSeq(string(text), "\n\n") {
		v := map[string]string{}
		for line := range strings.Lines(entry) {
			key, value, _ := strings.Cut(line, ":")
			v[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
		priority := 0
		if _, err := fmt.Sscan(v["priority"], &priority); err == nil && v["name"] == "sha256" && priority > most {
			best, most = v["driver"], priority
		}
	}
	return best
}

// measure reads a disk both ways. What it read before is forgotten first, but
// for the other end's page cache.
func measure(j job, round uint64, w way) error {
	s, disk := said{Disk: w.disk, How: w.how}, w.device
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return err
	}
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	buf := make([]byte, piece)
	for i := range 1 + rereads { // from the second time on from the guest's own page cache
		if s.Kind = "again"; i == 0 {
			s.Kind = "sequential"
		}
		begin := time.Now()
		_, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.NewSectionReader(f, 0, j.Bytes)}, buf)
		s.Ns = time.Since(begin).Nanoseconds()
		if err = errors.Join(err, say(s)); err != nil {
			return errors.Join(fmt.Errorf("read %s: %w", disk, err), f.Close())
		}
	}
	if err := f.Close(); err != nil {
		return err
	}
	if f, err = os.OpenFile(disk, os.O_RDONLY|unix.O_DIRECT, 0); err != nil {
		return err
	}
	b, r := aligned(), rand.New(rand.NewPCG(round, 1))
	begin := time.Now()
	for range j.Random {
		if _, err := f.ReadAt(b, r.Int64N(j.Bytes/block)*block); err != nil {
			return errors.Join(fmt.Errorf("read %s: %w", disk, err), f.Close())
		}
	}
	s.Kind, s.Ns = "random", time.Since(begin).Nanoseconds()
	return errors.Join(f.Close(), say(s))
}

func say(s said) error {
	b, err := json.Marshal(s)
	if err == nil {
		_, err = fmt.Printf("READ %s\n", b)
	}
	return err
}

// aligned is a block in memory as O_DIRECT wants it.
func aligned() []byte {
	b := make([]byte, 2*block)
	skip := int(-uintptr(unsafe.Pointer(&b[0])) & (block - 1))
	return b[skip : skip+block]
}
