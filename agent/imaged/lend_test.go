// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/zimage"
)

// neighbour is another image of which the disk is here, in a folder that a server
// cannot look into. It has the most of the origin's file a.
type neighbour struct {
	m       zimage.Manifest
	disk    []byte
	shared  []int // places of the origin's chunks
	path    string
	doubted chan []string
}

func newNeighbour(t *testing.T, o *origin) *neighbour {
	t.Helper()
	n := &neighbour{path: filepath.Join(t.TempDir(), "other.img"), doubted: make(chan []string, 99)}
	for i := o.last() - 1; i > 0; i-- { // at other places than there, and not all
		if c := o.m.Chunks[i]; c.Size == zimage.MaxChunk {
			n.m.Chunks = append(n.m.Chunks, zimage.Chunk{ID: c.ID, Off: int64(len(n.disk)), Size: c.Size})
			n.disk = append(n.disk, o.disk[c.Off:][:c.Size]...)
			n.shared = append(n.shared, i)
		}
	}
	if len(n.shared) < 40 {
		t.Fatalf("%d chunks are shared: the tests do not test", len(n.shared))
	}
	n.write(t, n.disk)
	return n
}

// write puts the disk in its place.
func (n *neighbour) write(t *testing.T, disk []byte) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(n.path), os.WriteFile(n.path, disk, 0o400), os.Chmod(filepath.Dir(n.path), 0o700)); err != nil {
		t.Fatal(err)
	}
}

// near is what the store would say of it, and hears what the store would.
func (n *neighbour) near(m zimage.Manifest) Near {
	return Near{Donors: zimage.NewDonors(m, func(d *zimage.Donors) { d.Add(n.m, n.path) }), Examine: func(_ context.Context, d *zimage.Donors) {
		if wrong := d.Doubtful(); wrong != nil {
			n.doubted <- wrong
		}
	}}
}

// TestOtherImages is what a server gets of other images, with one origin for all,
// which takes long to make.
func TestOtherImages(t *testing.T) {
	o := newOrigin(t)
	for name, test := range map[string]func(*testing.T, *origin){"lent": testLent, "altered": testAlteredLender, "lender fails": testLenderFails, "answer": testAnswer} {
		o.forget()
		t.Run(name, func(t *testing.T) { test(t, o) })
	}
}

func (o *origin) answerPacks(f http.HandlerFunc) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.pack = f
}

// testLent: what another image has is not fetched, nor is a start pack, and the
// server gets it without any right on that image.
func testLent(t *testing.T, o *origin) {
	n := newNeighbour(t, o)
	packs := make(chan string, 9)
	o.answerPacks(func(w http.ResponseWriter, r *http.Request) {
		packs <- r.URL.Path
		http.NotFound(w, r)
	})
	defer o.answerPacks(nil)
	store := filepath.Join(t.TempDir(), "whole.img")
	s, path := serveNear(t, launcher(t, o, patience), o, store, n.near(o.m))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("read: %v", err)
	}
	within(t, "the whole image", s.Whole())
	for _, i := range n.shared {
		if slices.Contains(o.names(), o.m.Chunks[i].ID) {
			t.Errorf("chunk %d was fetched", i)
		}
	}
	rest := o.m.DiskSize - int64(len(n.disk))
	t.Logf("of a disk of %d bytes, of which %d are not in another image, it received %d", o.m.DiskSize, rest, s.Bytes())
	if s.Bytes() == 0 || s.Bytes() > rest {
		t.Error("that is not the rest")
	}
	select {
	case p := <-packs:
		t.Errorf("it asked for %s", p)
	default:
	}
	part, _ := zimage.PartNames(store)
	if err := zimage.VerifyImage(part, o.m); err != nil {
		t.Error(err)
	}
	if len(n.doubted) > 0 {
		t.Errorf("the other image is doubted: %v", <-n.doubted)
	}
}

// testAlteredLender: a wrong chunk of another image comes from a mirror, and the
// store hears of it once.
func testAlteredLender(t *testing.T, o *origin) {
	n := newNeighbour(t, o)
	wrong := n.shared[7]
	disk := slices.Clone(n.disk)
	disk[n.m.Chunks[7].Off+99] ^= 1
	n.write(t, disk)
	s, path := serveNear(t, launcher(t, o, patience), o, filepath.Join(t.TempDir(), "whole.img"), n.near(o.m))
	if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, o.disk) {
		t.Errorf("read: %v", err)
	}
	within(t, "the whole image", s.Whole())
	for _, i := range n.shared {
		if asked := slices.Contains(o.names(), o.m.Chunks[i].ID); asked != (i == wrong) {
			t.Errorf("chunk %d was fetched: %v", i, asked)
		}
	}
	select {
	case got := <-n.doubted:
		if !slices.Equal(got, []string{n.path}) {
			t.Errorf("doubted: %v", got)
		}
	case <-time.After(patience):
		t.Error("the store did not hear of it")
	}
}

// testLenderFails: whatever becomes of the agent, and whatever it says, the server
// gets from mirrors what that does not lend.
func testLenderFails(t *testing.T, o *origin) {
	n := newNeighbour(t, o)
	for name, lend := range map[string]func(n int, c zimage.Chunk) (answer []byte, more bool){
		"is gone": func(int, zimage.Chunk) ([]byte, bool) { return nil, false },
		"goes after two": func(n int, c zimage.Chunk) ([]byte, bool) {
			return append([]byte{serve.Given}, o.disk[c.Off:][:c.Size]...), n < 1
		},
		"breaks off": func(n int, c zimage.Chunk) ([]byte, bool) {
			return append([]byte{serve.Given}, o.disk[c.Off:][:c.Size/2]...), false
		},
		"lies once": func(n int, c zimage.Chunk) ([]byte, bool) {
			if n > 0 {
				return []byte{serve.Refused}, true
			}
			return append([]byte{serve.Given}, make([]byte, c.Size)...), true
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := launcher(t, o, patience)
			asked := make(chan int64, len(o.m.Chunks))
			l.Start = func(ctx context.Context, s proc.Spec) (Process, error) {
				ours, theirs, err := socket()
				if err != nil {
					return nil, err
				}
				defer theirs.Close() // the server has its own
				s.Files = append(slices.Clone(s.Files[:len(s.Files)-1]), theirs)
				go func() {
					defer ours.Close()
					for k, more := 0, true; more; k++ {
						var ask [4]byte
						if _, err := io.ReadFull(ours, ask[:]); err != nil {
							return
						}
						i := binary.LittleEndian.Uint32(ask[:])
						asked <- int64(i)
						var answer []byte
						answer, more = lend(k, o.m.Chunks[i])
						if _, err := ours.Write(answer); err != nil {
							return
						}
					}
				}()
				return start(ctx, s)
			}
			s, path := serveNear(t, l, o, filepath.Join(t.TempDir(), "whole.img"), n.near(o.m))
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, o.disk) {
				t.Errorf("read: %v", err)
			}
			within(t, "the whole image", s.Whole())
			if len(asked) == 0 {
				t.Error("nothing was asked: the test did not test")
			}
			if s.Bytes() < 10<<20 {
				t.Errorf("%d bytes came from mirrors", s.Bytes())
			}
		})
	}
}

// testAnswer: a server that asks for what there is not, or twice, gets nothing
// more.
func testAnswer(t *testing.T, o *origin) {
	n := newNeighbour(t, o)
	shared := n.shared
	for name, last := range map[string]uint32{"twice": uint32(shared[0]), "behind the last": uint32(len(o.m.Chunks)), "far behind": 1<<32 - 1} {
		t.Run(name, func(t *testing.T) {
			ours, theirs, err := socket()
			if err != nil {
				t.Fatal(err)
			}
			defer theirs.Close()
			s := &Served{log: slog.New(slog.DiscardHandler), cfg: serve.Config{Manifest: o.m}}
			ended := make(chan error, 1)
			go func() {
				ended <- s.answer(ours, n.near(o.m))
				ours.Close()
			}()
			ask := func(i uint32) {
				if _, err := theirs.Write(binary.LittleEndian.AppendUint32(nil, i)); err != nil {
					t.Fatal(err)
				}
			}
			ask(uint32(shared[0]))
			c := o.m.Chunks[shared[0]]
			got := make([]byte, 1+c.Size)
			if _, err := io.ReadFull(theirs, got); err != nil || got[0] != serve.Given || !bytes.Equal(got[1:], o.disk[c.Off:][:c.Size]) {
				t.Fatalf("answer %d, %v", got[0], err)
			}
			ask(0) // metadata, which the other has otherwise
			if _, err := io.ReadFull(theirs, got[:1]); err != nil || got[0] != serve.Refused {
				t.Fatalf("answer %d, %v", got[0], err)
			}
			ask(last)
			select {
			case err := <-ended:
				if err == nil {
					t.Error("it ended without a reason")
				}
			case <-time.After(patience):
				t.Fatal("it goes on")
			}
			if rest, err := io.ReadAll(theirs); err != nil || len(rest) != 0 {
				t.Errorf("%d bytes more, %v", len(rest), err)
			}
		})
	}
}
