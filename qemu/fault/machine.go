// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Faults of the whole machine.

// initSignal is what PID 1 is sent: QUIT makes Go's runtime end it, USR1 makes a
// test image's init panic in one of its loops.
func initSignal(name string) (unix.Signal, error) {
	sig, ok := map[string]unix.Signal{"quit": unix.SIGQUIT, "usr1": unix.SIGUSR1}[name]
	if !ok {
		return 0, fmt.Errorf("unknown signal %q", name)
	}
	return sig, nil
}

func toInit(name string) error {
	sig, err := initSignal(name)
	if err != nil {
		return err
	}
	return unix.Kill(1, sig)
}

// freeze stops PID 1 for good, which no signal can do: it is put into a control
// group that is frozen.
func freeze() (any, error) {
	const group = "/sys/fs/cgroup/frozen"
	if err := os.Mkdir(group, 0o755); err != nil {
		return nil, err
	}
	for _, w := range [][2]string{{"cgroup.procs", "1"}, {"cgroup.freeze", "1"}} {
		if err := os.WriteFile(filepath.Join(group, w[0]), []byte(w[1]), 0); err != nil {
			return nil, err
		}
	}
	return map[string]any{}, nil
}

const mib = 1 << 20

// fill writes zeros until so many MiB are left in the file's file system, 0 for
// none at all.
func fill(name string, leave int64) (any, error) {
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	b := make([]byte, mib)
	var wrote, before int64
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(filepath.Dir(name), &st); err != nil {
			return nil, errors.Join(err, f.Close())
		}
		if leave > 0 && int64(st.Bavail)*st.Bsize/mib <= leave {
			break
		}
		n, err := f.Write(b)
		wrote += int64(n)
		if errors.Is(err, unix.ENOSPC) {
			// What a file system held back may be free once all of this is on its
			// disk; it is full when not even a page goes in then.
			if err := f.Sync(); err != nil && !errors.Is(err, unix.ENOSPC) {
				return nil, errors.Join(err, f.Close())
			}
			if b = b[:os.Getpagesize()]; wrote == before {
				break
			}
			before = wrote
			continue
		}
		if err != nil {
			return nil, errors.Join(err, f.Close())
		}
	}
	return map[string]any{"bytes": wrote}, f.Close()
}

// maxRead bounds what one answer holds.
const maxRead = 64 << 10

// read returns a file's text; /dev/vcs2, say, is what stands on the screen's
// second terminal.
func read(name string) (any, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRead))
	return map[string]any{"text": string(b)}, errors.Join(err, f.Close())
}

// screen shows a virtual terminal and waits until it is there.
func screen(number int64) error {
	const activate, waitActive = 0x5606, 0x5607 // VT_ACTIVATE, VT_WAITACTIVE
	f, err := os.OpenFile("/dev/tty0", os.O_WRONLY|unix.O_NOCTTY, 0)
	if err != nil {
		return err
	}
	for _, request := range []uint{activate, waitActive} {
		err = errors.Join(err, unix.IoctlSetInt(int(f.Fd()), request, int(number)))
	}
	return errors.Join(err, f.Close())
}

const eatWord = "eat"

// eat starts this program once more, to take memory until the kernel ends it.
func eat(sizeMiB int64) (any, error) {
	cmd := exec.Command("/bin/fault", eatWord, strconv.FormatInt(sizeMiB, 10))
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	err := cmd.Wait()
	return map[string]any{"ended": fmt.Sprint(err)}, nil
}

func devour(size string) {
	n, err := strconv.ParseInt(size, 10, 64)
	if err != nil {
		log.Fatal(err)
	}
	const step = 8 * mib
	for taken := int64(0); n == 0 || taken < n*mib; taken += step {
		b, err := unix.Mmap(-1, 0, step, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
		if err != nil {
			log.Fatal(err)
		}
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
	}
	time.Sleep(time.Hour)
}
