// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// handLimit bounds one start by hand.
const handLimit = 90 * time.Second

// entropySize is what a guest wants.
const entropySize = 32

// hand starts a program as a person would, without anything of zos round it,
// and measures how long it takes until a text stands in a file. With a
// configuration it also tells the guest at once what to run, checking nothing,
// and measures until the first output of the workload. Then it ends it.
func hand(c command) (_ any, err error) {
	// The file is watched: whoever looked again and again would slow down what
	// is measured, by a fifth where everything is emulated.
	if err := os.WriteFile(c.File, nil, 0o600); err != nil {
		return nil, err
	}
	more, done, err := watch(c.File)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	limit := time.After(handLimit)
	spoke := make(chan error, 1)
	if c.Config != nil {
		path := fmt.Sprintf("%s_%d", c.Vsock, wire.Port)
		for _, old := range []string{c.Vsock, path} {
			if err := os.Remove(old); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return nil, err
			}
		}
		ln, err := net.Listen("unix", path)
		if err != nil {
			return nil, err
		}
		defer func() { err = errors.Join(err, ln.Close()) }()
		go func() { spoke <- speak(ln, *c.Config) }()
	}
	start := time.Now()
	cmd := exec.Command(c.Argv[0], c.Argv[1:]...)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	answer := map[string]any{}
	fail := func(format string, args ...any) (any, error) {
		if kerr := cmd.Process.Kill(); kerr != nil && !errors.Is(kerr, os.ErrProcessDone) {
			return nil, kerr
		}
		return nil, fmt.Errorf(format, args...)
	}
	for {
		b, err := os.ReadFile(c.File)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fail("%w", err)
		}
		if answer["ms"] == nil && bytes.Contains(b, []byte(c.Until)) {
			answer["ms"] = time.Since(start).Milliseconds()
		}
		if answer["ms"] != nil && (c.Config == nil || answer["workloadMs"] != nil) {
			break
		}
		select {
		case <-limit:
			return fail("nothing after %s: %s%s", handLimit, b, said.String())
		case err := <-ended:
			return nil, fmt.Errorf("it ended: %v: %s", err, said.String())
		case err := <-spoke:
			if err != nil {
				return fail("speak with the guest: %w", err)
			}
			answer["workloadMs"] = time.Since(start).Milliseconds()
		case <-more:
		}
	}
	if err := cmd.Process.Kill(); err != nil {
		return nil, err
	}
	<-ended
	return answer, nil
}

// watch delivers whenever a file, or a file of a folder, is written to:
// inotify(7), until done is called.
func watch(name string) (more <-chan struct{}, done func() error, err error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, name, unix.IN_MODIFY); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("watch %s: %w", name, err), f.Close())
	}
	out := make(chan struct{}, 1)
	go func() {
		events := make([]byte, 4096)
		for {
			if _, err := f.Read(events); err != nil {
				return // it is closed
			}
			select {
			case out <- struct{}{}:
			default:
			}
		}
	}()
	return out, f.Close, nil
}

// heard waits until the agent has the first output of a workload, in one of
// the files of a folder where it keeps them.
func heard(dir string) (_ any, err error) {
	more, done, err := watch(dir)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, done()) }()
	for limit := time.After(handLimit); ; {
		files, err := filepath.Glob(filepath.Join(dir, "*.log"))
		if err != nil {
			return nil, err
		}
		for _, name := range files {
			if st, err := os.Stat(name); err == nil && st.Size() > 0 {
				return map[string]any{"file": name}, nil
			}
		}
		select {
		case <-more:
		case <-limit:
			return nil, fmt.Errorf("no output in %s after %s", dir, handLimit)
		}
	}
}

// speak takes the guest's connection, sends what it is to run, lets it start,
// and returns with the first output of the workload.
func speak(ln net.Listener, c wire.Config) (err error) {
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	c.TimeMs, c.Entropy = time.Now().UnixMilli(), make([]byte, entropySize)
	if _, err := rand.Read(c.Entropy); err != nil {
		return err
	}
	for {
		f, err := wire.ReadFrame(conn)
		switch {
		case err != nil:
			return err
		case f.Hello != nil:
			err = wire.WriteFrame(conn, wire.Frame{Config: &c})
		case f.Report != nil:
			err = wire.WriteFrame(conn, wire.Frame{Start: &wire.Start{}})
		case f.Output != nil:
			return nil
		case f.Fatal != nil:
			return fmt.Errorf("%s: %s", f.Fatal.Phase, f.Fatal.Error)
		}
		if err != nil {
			return err
		}
	}
}
