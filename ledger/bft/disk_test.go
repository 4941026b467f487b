// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/ledger"
)

// supervise is what systemd does for a server whose folder lies on a small
// disk: it mounts a tmpfs over the folder, in a mount namespace of its own,
// copies the folder into it, and starts the server again whenever it ends. Each
// start that comes to listen is a line, as is each end.
func supervise(dir, megabytes string) error {
	from := dir + "-before"
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+megabytes+"m"); err != nil {
		return fmt.Errorf("mount: %w", err)
	}
	if out, err := exec.Command("cp", "-a", from+"/.", dir).CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	fmt.Println("mounted")
	for {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ZOS_TEST_DISK=")
		cmd.Stdout = os.Stdout
		said := &strings.Builder{}
		cmd.Stderr = said
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		err := cmd.Run()
		fmt.Printf("ended %v %q\n", err, said.String()[max(0, said.Len()-400):])
		time.Sleep(300 * time.Millisecond)
	}
}

// disk is a server on a small disk.
type disk struct {
	t     *testing.T
	root  string // of its mount namespace
	dir   string
	url   atomic.Pointer[string]
	ended atomic.Int64
	last  atomic.Pointer[string] // how it ended
}

// onDisk starts a server whose folder has so many megabytes.
func onDisk(t *testing.T, dir string, megabytes int, reserve int64) *disk {
	t.Helper()
	if err := os.Rename(dir, dir+"-before"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "ZOS_TEST_LEDGER="+dir, "ZOS_TEST_DISK="+strconv.Itoa(megabytes), "ZOS_TEST_RESERVE="+strconv.FormatInt(reserve, 10), "ZOS_TEST_CRASH=", "ZOS_TEST_BAD=")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIP the disk cannot be made: a namespace of users and mounts is refused: %v", err)
	}
	d := &disk{t: t, root: fmt.Sprintf("/proc/%d/root", cmd.Process.Pid), dir: dir}
	lines := bufio.NewReader(out)
	first, err := lines.ReadString('\n')
	if err != nil || first != "mounted\n" {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		t.Fatalf("the disk was not mounted: %q, %v", first, err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		for {
			line, err := lines.ReadString('\n')
			if err != nil {
				return
			}
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "ended") {
				d.last.Store(&line)
				d.ended.Add(1)
			} else {
				d.url.Store(&line)
			}
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the server has Pdeathsig
		<-read
		_ = cmd.Wait()
	})
	waitFor(t, "the server to listen", func() bool { return d.url.Load() != nil })
	return d
}

func (d *disk) ballast() string { return filepath.Join(d.root, d.dir, "ballast") }

func (d *disk) free() int64 {
	var s unix.Statfs_t
	if err := unix.Statfs(filepath.Join(d.root, d.dir), &s); err != nil {
		d.t.Fatal(err)
	}
	return int64(s.Bavail) * s.Bsize
}

// fill leaves so many bytes free.
func (d *disk) fill(left int64) {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	for d.free() > left {
		_, err := f.Write(make([]byte, min(1<<20, d.free()-left)))
		if errors.Is(err, unix.ENOSPC) {
			return
		} else if err != nil {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) empty() {
	if err := os.Remove(d.ballast()); err != nil {
		d.t.Fatal(err)
	}
}

// While the disk is nearly full, entries are refused and told why, everything
// can be read, and the server neither ends nor loses anything; when there is
// room, it goes on.
func TestDiskNearlyFull(t *testing.T) {
	l, dir := fresh(t, lease)
	d := onDisk(t, dir, 96, 32<<20)
	url := *d.url.Load()
	c := client(t, dir+"-before", url)
	k := &kept{entries: map[int64][]byte{}, want: -1}
	put := func(name string) {
		entry := l.Register(name, 1, nil)
		r, err := c.Submit(t.Context(), entry)
		if err != nil {
			t.Fatal(err)
		}
		if err := k.add(r, entry); err != nil {
			t.Fatal(err)
		}
	}
	put("before")
	d.fill(8 << 20)
	resp, err := http.Post(url+"/submit", "application/json", strings.NewReader(string(l.Register("full", 1, nil))))
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(string(b), "disk of this server is full: 8 MiB are free, 32 are kept") {
		t.Errorf("%s: %s, %v", resp.Status, b, err)
	}
	health, err := http.Get(url + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	health.Body.Close()
	if health.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("healthz: %s", health.Status)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Errorf("reading: %v", err)
	}
	d.empty()
	put("full")
	put("after")
	if n := d.ended.Load(); n > 0 || *d.url.Load() != url {
		t.Errorf("the server ended %d times: %s", n, *d.last.Load())
	}
	d.holds(k)
}

// holds wants every receipt to hold.
func (d *disk) holds(k *kept) {
	d.t.Helper()
	c := client(d.t, d.dir+"-before", *d.url.Load())
	if err := c.Sync(d.t.Context()); err != nil {
		d.t.Fatal(err)
	}
	for index, entry := range k.entries {
		if got, err := c.Entries().Get(d.t.Context(), index); err != nil || string(got) != string(entry) {
			d.t.Errorf("entry %d had a receipt and is not there: %v", index, err)
		}
	}
}

// A disk that is full to the last byte ends the server, at whichever write; no
// receipt is given for what is not on it, and with room it goes on by itself.
func TestDiskFull(t *testing.T) {
	l, dir := fresh(t, lease)
	d := onDisk(t, dir, 96, -1)
	k := &kept{entries: map[int64][]byte{}, want: -1}
	n := 0
	try := func(entry []byte) error {
		r, err := client(t, dir+"-before", *d.url.Load()).Submit(t.Context(), entry)
		if err == nil {
			err = k.add(r, entry)
		}
		return err
	}
	next := func() []byte { n++; return l.Register(fmt.Sprintf("d%d", n), 1, nil) }
	for round := range 3 {
		for range 5 {
			entry := next()
			waitFor(t, "a receipt", func() bool { return try(entry) == nil })
		}
		before := d.ended.Load()
		d.fill(int64(round) * 20_000) // it ends at another write each time
		var refused *ledger.Refused
		waitFor(t, "the server to end for want of room", func() bool {
			if err := try(next()); errors.As(err, &refused) {
				t.Fatal(err)
			}
			return d.ended.Load() > before
		})
		t.Logf("%d receipts, then %.300s", len(k.entries), *d.last.Load())
		d.empty()
		entry := next()
		waitFor(t, "a receipt after there is room", func() bool { return try(entry) == nil })
		d.holds(k)
	}
}
