// SPDX-License-Identifier: Apache-2.0

// Command fault puts faults into a node from within, on request of a test:
// it ends the agent, flips a byte in a file, tells who runs. Only test images
// carry it (build tag "faults" of init); a production image has neither it
// nor the code that would start it.
//
// It reads commands from the virtio port "zos.fault": one line of JSON each,
// answered by one line.
package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// command is what a test asks for.
type command struct {
	Do      string `json:"do"`
	File    string `json:"file"`    // flip, list: a glob; heard: a folder
	Pattern string `json:"pattern"` // flip, find: hex bytes to look for; flip changes the first of them
	Offset  int64  `json:"offset"`  // flip without a pattern, truncate: where
	Name    string `json:"name"`    // kill, stop, cont: base name of the program

	Text string `json:"text"` // write: into File
	Size int64  `json:"size"` // fill: how many MiB to leave; eat: how many to take, 0 for all; screen: which terminal

	Argv  []string `json:"argv"`  // hand: what to start
	Until string   `json:"until"` // hand: text in File that ends the measurement

	Config *wire.Config `json:"config"` // hand: speak with the guest over Vsock, until its workload says something
	Vsock  string       `json:"vsock"`  // hand: the socket's path that Argv names
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("fault: ")
	if len(os.Args) == 3 && os.Args[1] == eatWord {
		devour(os.Args[2])
		return
	}
	port, err := open()
	if err != nil {
		log.Print(err)
		time.Sleep(time.Hour) // no port: a test image that runs without its rig
		return
	}
	for in := bufio.NewReader(port); ; {
		line, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) && len(line) == 0 {
			time.Sleep(50 * time.Millisecond) // nobody is at the other end
			continue
		}
		if err != nil && !errors.Is(err, io.EOF) {
			log.Fatalf("read: %v", err)
		}
		var c command
		var answer any
		if err = json.Unmarshal(line, &c); err == nil {
			log.Printf("asked to %s %s%s", c.Do, c.Name, c.File)
			answer, err = do(c)
		}
		if err != nil {
			answer = map[string]string{"error": err.Error()}
		}
		b, err := json.Marshal(answer)
		if err != nil {
			log.Fatalf("answer: %v", err)
		}
		if _, err := port.Write(append(b, '\n')); err != nil {
			log.Fatalf("write: %v", err)
		}
		if c.Do == "init" {
			// Only now: an init that fails ends all others, this program too.
			if err := toInit(c.Name); err != nil {
				log.Printf("init: %v", err)
			}
		}
	}
}

// open finds the port by its name.
func open() (*os.File, error) {
	names, err := filepath.Glob("/sys/class/virtio-ports/*/name")
	if err != nil {
		return nil, err
	}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		if strings.TrimSpace(string(b)) == "zos.fault" {
			// Blocking: the port answers EAGAIN to nobody otherwise.
			return os.OpenFile(filepath.Join("/dev", filepath.Base(filepath.Dir(n))), os.O_RDWR, 0)
		}
	}
	return nil, errors.New("no virtio port zos.fault")
}

func do(c command) (any, error) {
	switch c.Do {
	case "kill", "quit", "stop", "cont":
		return signalAll(c.Name, map[string]unix.Signal{"kill": unix.SIGKILL, "quit": unix.SIGQUIT, "stop": unix.SIGSTOP, "cont": unix.SIGCONT}[c.Do])
	case "flip", "find", "truncate", "swap":
		return alter(c)
	case "list":
		files, err := filepath.Glob(c.File)
		return map[string]any{"files": files}, err
	case "stat":
		return stat()
	case "hand":
		return hand(c)
	case "heard":
		return heard(c.File)
	case "init": // the answer first, see main
		_, err := initSignal(c.Name)
		return map[string]any{}, err
	case "freeze":
		return freeze()
	case "fill":
		return fill(c.File, c.Size)
	case "remove":
		return map[string]any{}, os.Remove(c.File)
	case "read":
		return read(c.File)
	case "write":
		return map[string]any{}, os.WriteFile(c.File, []byte(c.Text), 0)
	case "screen":
		return map[string]any{}, screen(c.Size)
	case "eat":
		return eat(c.Size)
	}
	return nil, fmt.Errorf("unknown command %q", c.Do)
}

// process is one that runs.
type process struct {
	PID    int      `json:"pid"`
	Name   string   `json:"name"`
	RSSKiB int64    `json:"rssKiB"`
	Cgroup string   `json:"cgroup"`
	Args   []string `json:"args"`
}

func processes() ([]process, error) {
	dirs, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil, err
	}
	var all []process
	for _, d := range dirs {
		if _, err := os.Readlink(d + "/exe"); err != nil {
			continue // a kernel thread, or gone
		}
		pid, err := strconv.Atoi(filepath.Base(d))
		if err != nil {
			return nil, err
		}
		status, err := os.ReadFile(d + "/status")
		if err != nil {
			continue
		}
		cgroup, err := os.ReadFile(d + "/cgroup")
		if err != nil {
			continue
		}
		args, err := os.ReadFile(d + "/cmdline")
		if err != nil {
			continue
		}
		argv := strings.Split(strings.TrimRight(string(args), "\x00"), "\x00")
		// By the name that it was started under: one program may have several.
		all = append(all, process{pid, filepath.Base(argv[0]), field(status, "VmRSS:"), strings.TrimSpace(string(cgroup)), argv})
	}
	return all, nil
}

// field reads a number of KiB from a file of /proc.
func field(b []byte, name string) int64 {
	for _, line := range strings.Split(string(b), "\n") {
		if f := strings.Fields(line); len(f) >= 2 && f[0] == name {
			n, err := strconv.ParseInt(f[1], 10, 64)
			if err == nil {
				return n
			}
		}
	}
	return -1
}

func stat() (any, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	mem, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return nil, err
	}
	up, err := os.ReadFile("/proc/uptime")
	if err != nil {
		return nil, err
	}
	links, err := filepath.Glob("/sys/class/net/*")
	if err != nil {
		return nil, err
	}
	for i := range links {
		links[i] = filepath.Base(links[i])
	}
	return map[string]any{
		"processes": all, "links": links, "uptime": strings.Fields(string(up))[0],
		"memTotalKiB": field(mem, "MemTotal:"), "memAvailableKiB": field(mem, "MemAvailable:"),
	}, nil
}

func signalAll(name string, sig unix.Signal) (any, error) {
	all, err := processes()
	if err != nil {
		return nil, err
	}
	var hit []int
	for _, p := range all {
		if p.Name == name && p.PID != 1 {
			if err := unix.Kill(p.PID, sig); err != nil {
				return nil, fmt.Errorf("signal %d: %w", p.PID, err)
			}
			hit = append(hit, p.PID)
		}
	}
	if len(hit) == 0 {
		return nil, fmt.Errorf("no process named %q", name)
	}
	return map[string]any{"pids": hit}, nil
}

// alter does something to the one file that matches the glob, or in which the
// pattern is: changes one bit, cuts it off, puts another in its place, or
// nothing but tell where the pattern is.
func alter(c command) (any, error) {
	files, err := filepath.Glob(c.File)
	if err != nil {
		return nil, err
	}
	name, at := "", c.Offset
	if c.Pattern == "" {
		if len(files) != 1 {
			return nil, fmt.Errorf("%d files are %s, want one", len(files), c.File)
		}
		name = files[0]
	} else if name, at, err = findIn(files, c.Pattern); err != nil {
		return nil, err
	}
	// The file may be read-only for its users; a fault does not ask.
	switch c.Do {
	case "flip":
		err = flip(name, at)
	case "truncate":
		err = os.Truncate(name, at)
	case "swap":
		err = swap(name)
	}
	return map[string]any{"file": name, "offset": at}, err
}

func findIn(files []string, pattern string) (string, int64, error) {
	want, err := hex.DecodeString(pattern)
	if err != nil || len(want) < 8 {
		return "", 0, fmt.Errorf("pattern %q: want at least 8 bytes in hex", pattern)
	}
	for _, name := range files {
		if at, err := find(name, want); err != nil || at >= 0 {
			return name, at, err
		}
	}
	return "", 0, fmt.Errorf("the pattern is in none of %v", files)
}

// flip changes one bit.
func flip(name string, at int64) error {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	if _, err = f.ReadAt(b, at); err == nil {
		_, err = f.WriteAt([]byte{b[0] ^ 1}, at)
	}
	return errors.Join(err, f.Close())
}

// swap puts another file of the same size under the name.
func swap(name string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	for i := range b {
		b[i] ^= 0x5a
	}
	other := filepath.Join(filepath.Dir(filepath.Dir(name)), "other")
	if err := os.WriteFile(other, b, 0o444); err != nil {
		return err
	}
	return os.Rename(other, name)
}

// find returns where a file holds the bytes, or -1.
func find(name string, want []byte) (int64, error) {
	f, err := os.Open(name)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	buf := make([]byte, 1<<20)
	keep := 0
	for at := int64(0); ; {
		n, err := io.ReadFull(f, buf[keep:])
		if i := bytes.Index(buf[:keep+n], want); i >= 0 {
			return at + int64(i), nil
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return -1, nil
		}
		if err != nil {
			return 0, err
		}
		copy(buf, buf[keep+n-len(want):keep+n])
		at += int64(keep + n - len(want))
		keep = len(want)
	}
}
