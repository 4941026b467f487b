// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/zimage"
)

// folder is a Store that is a folder.
type folder struct {
	dir   string
	fetch *zimage.Fetcher
	mu    sync.Mutex // held by whoever works on the one image of a test
}

func (f *folder) ImagePath(string) string { return filepath.Join(f.dir, "whole.img") }

func (f *folder) Image(ctx context.Context, m zimage.Manifest, id string) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.fetch.Image(ctx, m, id, f.ImagePath(id))
}

func (f *folder) Arrive(_ context.Context, _ zimage.Manifest, id string) (string, func(), bool, error) {
	f.mu.Lock()
	if _, err := os.Lstat(f.ImagePath(id)); err == nil {
		f.mu.Unlock()
		return f.ImagePath(id), nil, true, nil
	}
	return f.ImagePath(id), f.mu.Unlock, false, nil
}

func (f *folder) QuarantinePart(string) error { return errors.New("not in these tests") }

func (f *folder) PackAhead(string) *zimage.PackAhead { return nil }

func (f *folder) Donors(zimage.Manifest, string) *zimage.Donors { return nil }

func (f *folder) Examine(context.Context, *zimage.Donors) {}

func newImages(t *testing.T, o *origin) (*Images, *folder) {
	t.Helper()
	f := &folder{dir: t.TempDir(), fetch: &zimage.Fetcher{Mirrors: []string{o.url}}}
	i := NewImages(f, slog.New(slog.DiscardHandler))
	if err := i.Lazy(t.Context(), launcher(t, o, patience), 1); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := i.Release(context.Background(), 1); err != nil {
			t.Error(err)
		}
	})
	i.Use(1, o.id)
	return i, f
}

// TestImagesOneAfterTheOther: two that start at once share a server; once the
// image is whole, its file is the next disk, and who reads the served one
// reads on.
func TestImagesOneAfterTheOther(t *testing.T) {
	o := newOrigin(t)
	o.shut(o.needed()...)
	i, f := newImages(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	for range 2 {
		if _, err := i.Image(ctx, o.m, o.id); err != nil {
			t.Fatal(err)
		}
	}
	d := i.Disk(o.id)
	if s, err := i.Running(o.id, d.Path); d.Served == nil || d.Path == f.ImagePath(o.id) || s != d.Served || err != nil {
		t.Fatalf("disk %+v, %v", d, err)
	}
	if _, err := i.Running(o.id, d.Path+"x"); !errors.Is(err, ErrDied) {
		t.Errorf("a path that nobody knows: %v", err)
	}
	o.open()
	within(t, "the whole image", d.Served.Whole())
	if _, err := os.Lstat(d.Path); err != nil {
		t.Errorf("the path went away under somebody who was about to open it: %v", err)
	}
	file, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d.Done()
	waitFor(t, "the file in the store", func() bool { _, err := os.Lstat(f.ImagePath(o.id)); return err == nil })
	if now := i.Disk(o.id); now.Served != nil || now.Path != f.ImagePath(o.id) {
		t.Errorf("afterwards the disk is %+v", now)
	}
	if err := zimage.VerifyImage(f.ImagePath(o.id), o.m); err != nil {
		t.Error(err)
	}
	got := make([]byte, len(o.disk))
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("who reads the served disk: %v", err)
	}
	if _, err := i.Image(ctx, o.m, o.id); err != nil { // from the file
		t.Error(err)
	}
	file.Close()
	within(t, "the end of the server", d.Served.Ended())
	waitFor(t, "what is left of it to be removed", func() bool { return !i.shown(o.id) })
	if _, err := os.Lstat(filepath.Dir(d.Path)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its folder: %v", err)
	}
}

// needed is what must arrive before a guest may start.
func (o *origin) needed() []int {
	all := o.head()
	for i := range 16 {
		all = append(all, i)
	}
	return all
}

// TestImagesAfterDeath: a server that died is replaced at the next start, and
// ended when nobody uses the image any more.
func TestImagesAfterDeath(t *testing.T) {
	o := newOrigin(t)
	o.shut(o.needed()...)
	i, _ := newImages(t, o)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := i.Image(ctx, o.m, o.id); err != nil {
		t.Fatal(err)
	}
	d := i.Disk(o.id)
	d.Done()
	if err := d.Served.process.(*process).cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, "word of the end", d.Served.Ended())
	if _, err := i.Image(ctx, o.m, o.id); err != nil {
		t.Fatal(err)
	}
	next := i.Disk(o.id)
	next.Done()
	if next.Served == nil || next.Served == d.Served {
		t.Fatal("no new server")
	}
	if err := i.Release(ctx, 1); err != nil {
		t.Fatal(err)
	}
	within(t, "the end of a server that nobody uses", next.Served.Ended())
	if on, err := mounted(next.Path); on || err != nil {
		t.Errorf("the mount is left: %v", err)
	}
}

// TestImagesSmall: what is small is fetched whole, and so is everything where
// nothing can be served.
func TestImagesSmall(t *testing.T) {
	o := newOrigin(t)
	i, f := newImages(t, o)
	i.from = o.m.DiskSize + 1
	if _, err := i.Image(t.Context(), o.m, o.id); err != nil {
		t.Fatal(err)
	}
	if d := i.Disk(o.id); d.Served != nil || d.Path != f.ImagePath(o.id) {
		t.Errorf("disk %+v", d)
	}
}

// TestFound: the next agent takes up a server that runs: who reads from it
// reads on, and the image gets its name when it has arrived.
func TestFound(t *testing.T) {
	o := newOrigin(t)
	o.shut(o.needed()...)
	first := launcher(t, o, patience)
	store := &folder{dir: t.TempDir(), fetch: &zimage.Fetcher{Mirrors: []string{o.url}}}
	s, path := serveAt(t, first, o, store.ImagePath(o.id), nil)
	file, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	second := *first
	second.Adopt = func(dir string, parse proc.ParseFunc) (Process, error) {
		p := &process{cmd: s.process.(*process).cmd, booted: make(chan struct{}), done: make(chan struct{}), events: make(chan vm.Event, 8)}
		ended := make(chan string, 1)
		go func() {
			<-s.process.Done()
			ended <- "ended (not our child, no exit status)"
		}()
		go p.follow(filepath.Join(dir, proc.EventsFile), parse, ended)
		return p, nil
	}
	i := NewImages(store, slog.New(slog.DiscardHandler))
	if err := i.Lazy(t.Context(), &second, 1); err != nil {
		t.Fatal(err)
	}
	i.Use(1, o.id)
	again, err := i.Running(o.id, path)
	if err != nil || again == nil || again == s || !i.IsArriving(again) {
		t.Fatalf("found %+v, %v", again, err)
	}
	o.open()
	waitFor(t, "the file in the store", func() bool { _, err := os.Lstat(store.ImagePath(o.id)); return err == nil })
	got := make([]byte, len(o.disk))
	if _, err := file.ReadAt(got, 0); err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("who reads it: %v", err)
	}
	if err := i.Release(t.Context(), 1); err != nil {
		t.Error(err)
	}
	file.Close()
	within(t, "the end of the server", again.Ended())
}
