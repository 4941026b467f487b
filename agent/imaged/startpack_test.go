// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync/atomic"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// packOf is a start pack of some blocks.
func (o *origin) packOf(t *testing.T, l extent.List) []byte {
	t.Helper()
	made, _, err := o.store.StartPackObject(t.Context(), o.id, l, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(made.Body)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// sends has the mirror answer with a pack.
func (o *origin) sends(b []byte) {
	o.answers(func(w http.ResponseWriter, _ *http.Request) { w.Write(b) }) // whoever asked may be gone
}

func (o *origin) answers(h http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pack = h
}

// some are blocks of the image: of its first metadata, and of files.
func (o *origin) some() extent.List {
	at := o.m.Chunks[7].Off / extent.BlockSize
	return extent.List{{First: 0, Blocks: 2}, {First: at + 3, Blocks: 5}, {First: at - 100, Blocks: 1}}
}

// readAll reads blocks one by one, without reading ahead.
func readAll(f *os.File, l extent.List, disk []byte) error {
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	b := make([]byte, extent.BlockSize)
	for _, e := range l {
		for k := e.First; k < e.End(); k++ {
			if _, err := f.ReadAt(b, k*extent.BlockSize); err != nil {
				return err
			}
			if !bytes.Equal(b, disk[k*extent.BlockSize:][:len(b)]) {
				return errors.New("wrong bytes")
			}
		}
	}
	return nil
}

func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// TestStartPack: with a start pack a guest may start, and reads what is in it,
// while no chunk has come at all; what it reads is told block by block; a read
// beyond waits; and in the end the image is whole.
func TestStartPack(t *testing.T) {
	o := newOrigin(t)
	o.shut()
	o.sends(o.packOf(t, o.some()))
	store := filepath.Join(t.TempDir(), "whole.img")
	s, path := serveAt(t, launcher(t, o, patience), o, store, o.some())
	f := opened(t, path)
	if err := readAll(f, o.some(), o.disk); err != nil {
		t.Fatal(err)
	}
	// Blocks of hashes, which the pack has among them, may have been read ahead.
	ofData := func() (l extent.List) {
		for _, e := range s.Read() {
			if e.First*extent.BlockSize < o.m.DataSize {
				l = append(l, e)
			}
		}
		return l
	}
	waitFor(t, "word of the reads", func() bool { return ofData().Blocks() >= o.some().Blocks() })
	if got := ofData(); !slices.Equal(got, o.some()) {
		t.Errorf("read %v, want %v", got, o.some())
	}
	beyond := make(chan error, 1)
	go func() {
		beyond <- readAll(f, extent.List{{First: o.m.Chunks[9].Off / extent.BlockSize, Blocks: 1}}, o.disk)
	}()
	waitFor(t, "the chunk to be asked for", func() bool { return slices.Contains(o.names(), o.m.Chunks[9].ID) })
	select {
	case err := <-beyond:
		t.Errorf("a read beyond the pack did not wait: %v", err)
	default:
	}
	o.open()
	if err := <-beyond; err != nil {
		t.Error(err)
	}
	within(t, "the whole image", s.Whole())
	part, _ := zimage.PartNames(store)
	if err := zimage.VerifyImage(part, o.m); err != nil {
		t.Error(err)
	}
}

// TestPackAhead: a pack that was asked for beside the manifest is what a guest
// starts with, and no mirror is asked for another; where that comes to nothing, one is.
func TestPackAhead(t *testing.T) {
	o := newOrigin(t)
	good := o.packOf(t, o.some())
	for what, c := range map[string]struct {
		first []byte // nil: nothing
		asked int32
	}{"it comes": {good, 1}, "it lies": {append([]byte{1}, good...), 1}, "it is closed": {nil, 2}} {
		t.Run(what, func(t *testing.T) {
			o.shut()
			var asked atomic.Int32
			o.answers(func(w http.ResponseWriter, r *http.Request) {
				b := good
				if asked.Add(1) == 1 {
					if b = c.first; b == nil {
						<-r.Context().Done()
						return
					}
				}
				w.Header().Set("Content-Length", strconv.Itoa(len(b)))
				w.Write(b) // whoever asked may be gone
			})
			f := zimage.Fetcher{Mirrors: []string{o.url}, HTTP: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
			_, ahead, err := f.ManifestAhead(t.Context(), o.id)
			if err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the pack to be asked for", func() bool { return asked.Load() == 1 })
			if c.first == nil {
				ahead.Close()
			}
			if what == "it lies" {
				o.open()
			}
			_, path := serveNear(t, launcher(t, o, patience), o, filepath.Join(t.TempDir(), "whole.img"), Near{Pack: ahead})
			if err := readAll(opened(t, path), o.some(), o.disk); err != nil {
				t.Fatal(err)
			}
			if n := asked.Load(); n != c.asked {
				t.Errorf("a pack was asked for %d times, want %d", n, c.asked)
			}
		})
	}
	o.open()
}

// TestReadAhead: what a start comes to next by the order of the pack is in the
// kernel's memory before anybody reads it, and a server that is killed meanwhile is
// gone.
func TestReadAhead(t *testing.T) {
	o := newOrigin(t)
	o.shut()
	l := o.some()
	end := extent.List{{First: o.m.Chunks[9].Off / extent.BlockSize, Blocks: 1}}
	o.sends(o.packOf(t, append(l, end...)))
	s, path := serveAt(t, launcher(t, o, patience), o, filepath.Join(t.TempDir(), "whole.img"), nil)
	f := opened(t, path)
	disk, err := unix.Mmap(int(f.Fd()), 0, len(o.disk), unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(disk)
	here := func(block int64) bool {
		b := disk[block*extent.BlockSize:][:extent.BlockSize]
		var in byte
		if _, _, e := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&b[0])), extent.BlockSize, uintptr(unsafe.Pointer(&in))); e != 0 {
			t.Fatal(e)
		}
		return in&1 == 1
	}
	last := l[len(l)-1].First
	if err := readAll(f, end, o.disk); err != nil { // when that has come, all has
		t.Fatal(err)
	}
	if here(last) {
		t.Error("it is there before anything in front of it was read")
	}
	if err := readAll(f, l[:1], o.disk); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the block to be read ahead", func() bool { return here(last) })
	if err := s.Kill(t.Context()); err != nil {
		t.Error(err)
	}
}

// TestLyingPack: nothing of a pack that is wrong is served or kept, the mirror is
// reported, and the start goes on by chunks.
func TestLyingPack(t *testing.T) {
	o := newOrigin(t)
	good := o.packOf(t, o.some())
	for what, b := range map[string][]byte{
		"a bit is wrong": func() []byte { b := bytes.Clone(good); b[len(b)/2] ^= 1; return b }(),
		"cut off":        good[:len(good)*2/3],
		"no pack":        []byte("here it is"),
	} {
		t.Run(what, func(t *testing.T) {
			o.sends(b)
			l := launcher(t, o, patience)
			reports := make(chan error, 16)
			l.Report = func(mirror, what string, err error) {
				if mirror == o.url && what == "start pack of "+o.id {
					reports <- err
				}
			}
			s, path := serveAt(t, l, o, filepath.Join(t.TempDir(), "whole.img"), o.some())
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
		})
	}
}

// TestKilledWhileThePackComes: a server that is killed in the middle of a pack
// leaves nothing that the next one believes, which gets it again.
func TestKilledWhileThePackComes(t *testing.T) {
	o := newOrigin(t)
	o.shut()
	l := o.some()
	l[1].Blocks = 200 // some blocks of zstd, so that a part can come
	pack := o.packOf(t, l)
	held := make(chan struct{})
	o.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Write(pack[:len(pack)/2]) // whoever asked may be gone
		w.(http.Flusher).Flush()
		select {
		case <-held:
		case <-r.Context().Done():
		}
	})
	t.Cleanup(func() { close(held) })
	store := filepath.Join(t.TempDir(), "whole.img")
	run := launcher(t, o, patience)
	s, path := serveAt(t, run, o, store, nil)
	if err := readAll(opened(t, path), l[:1], o.disk); err != nil { // which came
		t.Fatal(err)
	}
	if err := s.process.(*process).cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	within(t, "word of the end", s.Ended())
	if err := s.Kill(t.Context()); err != nil {
		t.Fatal(err)
	}
	// What lies there now was proven by a process that is gone: it does not count.
	part, have := zimage.PartNames(store)
	disk, err := os.OpenFile(part, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAt(make([]byte, extent.BlockSize), 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if b, err := os.ReadFile(have); err != nil || len(bytes.Trim(b, "\x00")) != 0 {
		t.Errorf("chunks that nobody sent are said to be here: %x, %v", b, err)
	}
	o.sends(pack)
	s, path = serveAt(t, run, o, store, nil)
	if err := readAll(opened(t, path), l, o.disk); err != nil {
		t.Fatal(err)
	}
	o.open()
	within(t, "the whole image", s.Whole())
	if err := zimage.VerifyImage(part, o.m); err != nil {
		t.Error(err)
	}
}
