// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// TestServesWhileItArrives: a reader gets the disk's bytes, from a process
// without rights, before the image is there; when it is, the file that is
// left is the image, and who has the mounted one open reads on without it.
func TestServesWhileItArrives(t *testing.T) {
	o := newOrigin(t)
	o.shut(append(o.head(), o.last())...)
	store := filepath.Join(t.TempDir(), "whole.img")
	s, path := serveAt(t, launcher(t, o, patience), o, store, append(o.blocks(o.last()), extent.Extent{First: 1 << 40, Blocks: 1 << 40}, extent.Extent{First: -1, Blocks: 1}))
	h, err := s.process.Hardening()
	if err != nil || !strings.HasPrefix(h["Uid"], "64100\t64100") || h["NoNewPrivs"] != "1" || h["Seccomp"] != "2" || h["CapEff"] != "0000000000000000" {
		t.Errorf("the server runs as %q, NoNewPrivs %q, Seccomp %q, CapEff %q: %v", h["Uid"], h["NoNewPrivs"], h["Seccomp"], h["CapEff"], err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil || !info.Mode().IsRegular() || info.Mode().Perm() != 0o444 || info.Size() != o.m.DiskSize {
		t.Fatalf("shown is %v, %v", info, err)
	}
	at := o.m.Chunks[o.last()].Off
	b := make([]byte, 4096)
	if _, err := f.ReadAt(b, at); err != nil || !bytes.Equal(b, o.disk[at:][:len(b)]) {
		t.Fatalf("a chunk of the trace: %v", err)
	}
	select {
	case <-s.Whole():
		t.Fatal("the image was whole: nothing was shown")
	default:
	}
	if _, err := os.OpenFile(path, os.O_RDWR, 0); err == nil {
		t.Error("the disk can be opened to be written")
	}
	o.open()
	got := make([]byte, len(o.disk))
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, o.disk) {
		t.Fatalf("all of it: %v", err)
	}
	within(t, "the whole image", s.Whole())
	part, _ := zimage.PartNames(store)
	if err := zimage.VerifyImage(part, o.m); err != nil {
		t.Error(err)
	}
	if err := s.Detach(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("after Detach: %v", err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("who has it open reads: %v", err)
	}
	f.Close()
	within(t, "the end of a server that nobody needs", s.Ended())
	if err := s.Err(); err != nil {
		t.Errorf("it ended by %v", err)
	}
}

// TestKilledServer: a server that is killed takes its readers' file with
// it, says so, and the next one fetches only what is missing.
func TestKilledServer(t *testing.T) {
	o := newOrigin(t)
	o.shut(append(o.head(), 5, 6)...)
	store := filepath.Join(t.TempDir(), "whole.img")
	l := launcher(t, o, patience)
	s, path := serveAt(t, l, o, store, o.blocks(5, 6))
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	read := make(chan error, 1)
	go func() {
		_, err := f.ReadAt(make([]byte, 10), o.m.Chunks[o.last()].Off)
		read <- err
	}()
	waitFor(t, "the reader to wait", func() bool { return slices.Contains(o.names(), o.m.Chunks[o.last()].ID) })
	waitFor(t, "what is there to be written down", func() bool {
		_, have := zimage.PartNames(store)
		b, err := os.ReadFile(have)
		return err == nil && len(b) > 0 && b[0]&(1<<5|1<<6) == 1<<5|1<<6
	})
	if err := s.process.(*process).cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, "word of the end", s.Ended())
	if err := s.Err(); !errors.Is(err, ErrDied) {
		t.Errorf("it ended by %v", err)
	}
	select {
	case err := <-read:
		if err == nil {
			t.Error("the reader got what had not arrived")
		}
	case <-time.After(patience):
		t.Error("the reader waits for a server that is gone")
	}
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.forget()
	o.open()
	s, _ = serveAt(t, l, o, store, nil)
	within(t, "the whole image", s.Whole())
	for _, i := range []int{0, 5, 6} {
		if slices.Contains(o.names(), o.m.Chunks[i].ID) {
			t.Errorf("chunk %d was fetched again", i)
		}
	}
}

func (o *origin) names() []string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return slices.Clone(o.asked)
}

func (o *origin) forget() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.asked = nil
}

func waitFor(t *testing.T, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited for %s in vain", what)
		}
	}
}

// TestDeadline: what does not come ends the disk with a reason, and no read
// fails by it; one whose reader is killed comes back.
func TestDeadline(t *testing.T) {
	o := newOrigin(t)
	o.shut(append(o.head(), 1, 2)...)
	store := filepath.Join(t.TempDir(), "whole.img")
	s, path := serveAt(t, launcher(t, o, time.Second), o, store, o.blocks(1, 2))
	reader := exec.Command("cat", path)
	if err := reader.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- reader.Wait() }()
	within(t, "the deadline", s.Ended())
	if err := s.Err(); !errors.Is(err, ErrUnavailable) {
		t.Errorf("it ended by %v", err)
	}
	select {
	case err := <-ended:
		t.Fatalf("the reader was failed: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	if err := reader.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	select {
	case <-ended:
	case <-time.After(patience):
		t.Fatal("a reader that is killed hangs")
	}
}

// TestLie: a wrong chunk is not served and not kept; the mirror is reported.
func TestLie(t *testing.T) {
	o := newOrigin(t)
	o.lie[o.m.Chunks[3].ID] = 2
	store := filepath.Join(t.TempDir(), "whole.img")
	l := launcher(t, o, patience)
	reports := make(chan error, 16)
	l.Report = func(mirror, _ string, err error) {
		if mirror == o.url {
			reports <- err
		}
	}
	s, path := serveAt(t, l, o, store, nil)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("read: %v", err)
	}
	within(t, "the whole image", s.Whole())
	select {
	case err := <-reports:
		if !errors.Is(err, zimage.ErrMismatch) {
			t.Errorf("reported: %v", err)
		}
	case <-time.After(patience):
		t.Error("nobody heard of the lie")
	}
}

// TestAlteredWhileNobodyLooked: what lies there from an earlier server is
// hashed before it is served.
func TestAlteredWhileNobodyLooked(t *testing.T) {
	o := newOrigin(t)
	store := filepath.Join(t.TempDir(), "whole.img")
	part, have := zimage.PartNames(store)
	wrong := slices.Clone(o.disk)
	wrong[o.m.Chunks[4].Off+17] ^= 1
	all := make([]bool, len(o.m.Chunks))
	for i := range all {
		all[i] = true
	}
	if err := errors.Join(os.WriteFile(part, wrong, 0o600), os.WriteFile(have, zimage.PackHave(all), 0o600)); err != nil {
		t.Fatal(err)
	}
	s, path := serveAt(t, launcher(t, o, patience), o, store, nil)
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("read: %v", err)
	}
	within(t, "the whole image", s.Whole())
	if asked := o.names(); !slices.Equal(asked, []string{o.m.Chunks[4].ID}) {
		t.Errorf("asked for %v", asked)
	}
}

// TestTouched: what was read is told, in order.
func TestTouched(t *testing.T) {
	o := newOrigin(t)
	store := filepath.Join(t.TempDir(), "whole.img")
	s, path := serveAt(t, launcher(t, o, patience), o, store, nil)
	within(t, "the whole image", s.Whole())
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil { // no reading ahead
		t.Fatal(err)
	}
	want := []int{9, 4}
	for _, i := range want {
		if _, err := f.ReadAt(make([]byte, 1), o.m.Chunks[i].Off); err != nil {
			t.Fatal(err)
		}
	}
	waitFor(t, "word of the reads", func() bool { return len(s.Read()) >= len(want) })
	for n, e := range s.Read() {
		if e.Blocks != 1 || e.First != o.m.Chunks[want[n]].Off/extent.BlockSize {
			t.Errorf("read %v, want one block of each of %v", s.Read(), want)
		}
	}
}

// TestNobodyHasIt: when every mirror has the beginning wrong, there is no start
// to wait for.
func TestNobodyHasIt(t *testing.T) {
	o := newOrigin(t)
	o.lie[o.m.Chunks[0].ID] = 1 << 30
	l := launcher(t, o, patience)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	s, err := l.Serve(ctx, o.m, o.id, filepath.Join(t.TempDir(), "whole.img"), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Kill(context.Background()); err != nil {
			t.Error(err)
		}
	}()
	if err := s.Ready(ctx); !errors.Is(err, ErrUnavailable) || !strings.Contains(err.Error(), o.m.Chunks[0].ID) {
		t.Errorf("got %v", err)
	}
}
