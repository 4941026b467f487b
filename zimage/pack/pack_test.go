// SPDX-License-Identifier: Apache-2.0

package pack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/andybalholm/brotli"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/verity"
)

// disk is an image of so many blocks of data, whose first half compresses.
type disk struct {
	Image
	b []byte
}

func newDisk(t testing.TB, blocks int) disk {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "tree"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	d := disk{Image: Image{DataSize: int64(blocks) * verity.BlockSize}}
	tree, err := verity.NewBuilder(f, d.DataSize)
	if err != nil {
		t.Fatal(err)
	}
	d.b = make([]byte, d.DataSize+tree.Size())
	for i := range blocks / 2 {
		binary.LittleEndian.PutUint64(d.b[i*verity.BlockSize:], uint64(i))
	}
	if _, err := rand.NewChaCha8([32]byte{1}).Read(d.b[d.DataSize/2 : d.DataSize]); err != nil {
		t.Fatal(err)
	}
	if err := tree.Add(0, d.b[:d.DataSize]); err != nil {
		t.Fatal(err)
	}
	if d.Root, err = tree.Root(); err != nil {
		t.Fatal(err)
	}
	if _, err := f.ReadAt(d.b[d.DataSize:], 0); err != nil && tree.Size() > 0 {
		t.Fatal(err)
	}
	return d
}

func (d disk) block(k int64) []byte { return d.b[k*verity.BlockSize : (k+1)*verity.BlockSize] }

func (d disk) read(k int64, b []byte) error {
	copy(b, d.block(k))
	return nil
}

// write makes the pack of a start, quickly.
func (d disk) write(t testing.TB, start extent.List) ([]byte, Made) {
	t.Helper()
	var w bytes.Buffer
	made, err := write(&w, d.Image, start, d.read)
	if err != nil {
		t.Fatal(err)
	}
	return raw(t, w.Bytes()), made
}

// got is what Read hands on.
type got struct {
	index  extent.List
	blocks []int64
}

// read reads a pack. Whatever it is, nothing comes out that is not the disk's,
// or comes twice.
func (d disk) unpack(t testing.TB, b []byte) (g got, err error) {
	t.Helper()
	err = Read(bytes.NewReader(b), d.Image, Reading{
		Index: func(l extent.List) error { g.index = l; return nil },
		Block: func(k int64, b []byte) error {
			if !bytes.Equal(b, d.block(k)) || slices.Contains(g.blocks, k) {
				t.Errorf("block %d is wrong, or came before", k)
			}
			g.blocks = append(g.blocks, k)
			return nil
		},
	})
	return g, err
}

// TestRoundTrip: what a start reads comes out in its order, each block behind
// what proves it, once.
func TestRoundTrip(t *testing.T) {
	for _, blocks := range []int{1, 2, 130, 700} {
		d := newDisk(t, blocks)
		start := extent.List{}
		for _, k := range rand.New(rand.NewPCG(1, 2)).Perm(blocks)[:(blocks+1)/2] {
			start = start.Add(int64(k))
		}
		start = append(start, start[0]) // read again; a pack has it once
		b, made := d.write(t, start)
		g, err := d.unpack(t, b)
		if err != nil {
			t.Fatalf("%d blocks: %v", blocks, err)
		}
		if made.Left != 0 || made.Blocks != int64(len(g.blocks)) || g.index.Blocks() != made.Blocks {
			t.Errorf("%d blocks: %+v, %d came", blocks, made, len(g.blocks))
		}
		data := slices.DeleteFunc(slices.Clone(g.blocks), func(k int64) bool { return k >= int64(blocks) })
		var want []int64
		for _, e := range start[:len(start)-1] {
			for k := e.First; k < e.End(); k++ {
				want = append(want, k)
			}
		}
		if !slices.Equal(data, want) || made.Hashes != int64(len(g.blocks)-len(data)) {
			t.Errorf("%d blocks: %v came, want %v; %+v", blocks, data, want, made)
		}
	}
	// Blocks of hashes that a start read are in it in their place.
	d := newDisk(t, 300)
	b, _ := d.write(t, extent.List{{First: 302, Blocks: 1}, {First: 7, Blocks: 1}})
	if g, err := d.unpack(t, b); err != nil || !slices.Equal(g.blocks, []int64{300, 302, 301, 7}) {
		t.Errorf("came %v, %v", g.blocks, err)
	}
}

// TestWrite: what is published is small, reads back, and is the same for the same
// start.
func TestWrite(t *testing.T) {
	d := newDisk(t, 60)
	start := extent.List{{First: 3, Blocks: 27}, {First: 40, Blocks: 9}}
	var w, again bytes.Buffer
	made, err := Write(&w, d.Image, start, d.read)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Write(&again, d.Image, start, d.read); err != nil || !bytes.Equal(again.Bytes(), w.Bytes()) {
		t.Errorf("another pack of the same start, %v", err)
	}
	// What does not compress are 9 blocks of data and 60 hashes.
	if n, least := w.Len(), 9*verity.BlockSize+60*verity.HashSize; n < least || n > least+600 {
		t.Errorf("%d bytes, of which %d do not compress", n, least)
	}
	g, err := d.unpack(t, w.Bytes())
	if want := (Made{Blocks: 37, Hashes: 1}); err != nil || made != want || int64(len(g.blocks)) != made.Blocks {
		t.Errorf("%+v, %d blocks came, %v", made, len(g.blocks), err)
	}
}

// TestFull: of a start that is too large the beginning is taken.
func TestFull(t *testing.T) {
	d := newDisk(t, 100)
	if made, err := write(io.Discard, d.Image, extent.List{{First: 0, Blocks: 101}}, d.read); err != nil || made != (Made{Blocks: 101, Hashes: 1}) {
		t.Errorf("all of it: %+v, %v", made, err)
	}
	p, err := verity.NewProver((MaxBlocks+900)*verity.BlockSize, d.Root)
	if err != nil {
		t.Fatal(err)
	}
	list, made := order(p, extent.List{{First: 0, Blocks: MaxBlocks + 900}})
	if made.Blocks > MaxBlocks || made.Blocks < MaxBlocks-5 || list.Blocks() != made.Blocks || made.Left != MaxBlocks+900-(made.Blocks-made.Hashes) {
		t.Errorf("%+v", made)
	}
	if p, err = verity.NewProver(2*MaxHashes*128*verity.BlockSize, d.Root); err != nil {
		t.Fatal(err)
	}
	far := extent.List{}
	for k := range int64(2 * MaxHashes) {
		far = far.Add(k * 128)
	}
	if _, made := order(p, far); made.Hashes > MaxHashes || made.Hashes < MaxHashes-5 || made.Left == 0 {
		t.Errorf("far apart: %+v", made)
	}
}

// TestNotWritten: nothing is made of what is no start, or of blocks that are
// not the image's.
func TestNotWritten(t *testing.T) {
	d := newDisk(t, 10)
	for what, start := range map[string]extent.List{
		"nothing": {}, "behind the end": {{First: 11, Blocks: 1}}, "over the end": {{First: 9, Blocks: 3}}, "before": {{First: -1, Blocks: 2}},
		"no blocks": {{First: 1, Blocks: 0}}, "far behind": {{First: 1 << 62, Blocks: 1 << 62}},
	} {
		if _, err := Write(io.Discard, d.Image, start, d.read); err == nil {
			t.Errorf("%s was written", what)
		}
	}
	d.b[5*verity.BlockSize] ^= 1
	if _, err := Write(io.Discard, d.Image, extent.List{{First: 5, Blocks: 1}}, d.read); !errors.Is(err, verity.ErrCorrupt) {
		t.Errorf("a wrong block: %v", err)
	}
}

// raw makes a stream of what a pack is made of.
func raw(t testing.TB, parts ...[]byte) []byte {
	t.Helper()
	var w bytes.Buffer
	z := brotli.NewWriterLevel(&w, brotli.BestSpeed)
	if _, err := z.Write(slices.Concat(parts...)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return w.Bytes()
}

func index(l extent.List) []byte {
	b := l.Encode(1 << 20)
	return append(binary.AppendUvarint(nil, uint64(len(b))), b...)
}

// TestRefused: what is no pack of the image, and how much of it is good.
func TestRefused(t *testing.T) {
	d := newDisk(t, 200) // hashes: 200, and below it 201, 202
	other := newDisk(t, 201)
	root, head := d.Root[:], []byte(magic)
	list := index(extent.List{{First: 200, Blocks: 2}, {First: 3, Blocks: 1}})
	wrong := bytes.Clone(d.block(3))
	wrong[17] ^= 1
	wrongHashes := bytes.Clone(d.block(201))
	wrongHashes[len(wrongHashes)-1] ^= 1
	good := raw(t, head, root, list, d.block(200), d.block(201), d.block(3))
	if g, err := d.unpack(t, good); err != nil || len(g.blocks) != 3 {
		t.Fatalf("a good one: %v, %v", g, err)
	}
	foreign, _ := other.write(t, extent.List{{First: 0, Blocks: 9}})
	for what, c := range map[string]struct {
		b    []byte
		good int // blocks that come before the end
	}{
		"nothing":                {nil, 0},
		"not Brotli":             {[]byte("<html>not here</html>"), 0},
		"another version":        {raw(t, []byte("zos start pack 1\n"), root, list, d.block(200), d.block(201), d.block(3)), 0},
		"of another image":       {foreign, 0},
		"no root":                {raw(t, head, make([]byte, 32), list, d.block(200), d.block(201), d.block(3)), 0},
		"no index":               {raw(t, head, root), 0},
		"an empty index":         {raw(t, head, root, []byte{0}), 0},
		"half an index":          {raw(t, head, root, list[:3]), 0},
		"an endless index":       {raw(t, head, root, binary.AppendUvarint(nil, 1<<40)), 0},
		"an index of no number":  {raw(t, head, root, bytes.Repeat([]byte{0xff}, 11)), 0},
		"a block twice":          {raw(t, head, root, index(extent.List{{First: 200, Blocks: 2}, {First: 3, Blocks: 1}, {First: 3, Blocks: 1}}), d.block(200), d.block(201), d.block(3), d.block(3)), 0},
		"a block behind the end": {raw(t, head, root, index(extent.List{{First: 200, Blocks: 4}}), d.block(200), d.block(201), d.block(202), d.block(202)), 0},
		"without its hash":       {raw(t, head, root, index(extent.List{{First: 200, Blocks: 1}, {First: 3, Blocks: 1}}), d.block(200), d.block(3)), 1},
		"data ahead of its hash": {raw(t, head, root, index(extent.List{{First: 200, Blocks: 1}, {First: 3, Blocks: 1}, {First: 201, Blocks: 1}}), d.block(200), d.block(3), d.block(201)), 1},
		"a bit of data":          {raw(t, head, root, list, d.block(200), d.block(201), wrong), 2},
		"a bit of a hash":        {raw(t, head, root, list, d.block(200), wrongHashes, d.block(3)), 1},
		"a block for another":    {raw(t, head, root, list, d.block(200), d.block(201), d.block(150)), 2},
		"a block too few":        {raw(t, head, root, list, d.block(200), d.block(201)), 2},
		"half a block":           {raw(t, head, root, list, d.block(200), d.block(201), d.block(3)[:99]), 2},
		"a byte too many":        {raw(t, head, root, list, d.block(200), d.block(201), d.block(3), []byte{0}), 3},
		"a frame too many":       {append(bytes.Clone(good), raw(t, []byte("x"))...), 3},
		"rubbish behind it":      {append(bytes.Clone(good), "rubbish"...), 3},
		"cut off":                {good[:len(good)-5], 2},
	} {
		g, err := d.unpack(t, c.b)
		if !errors.Is(err, ErrPack) {
			t.Errorf("%s: %v", what, err)
		}
		if len(g.blocks) != c.good {
			t.Errorf("%s: blocks %v came, want %d", what, g.blocks, c.good)
		}
	}
	// A mistake of whoever reads is no mistake of the pack.
	mine := errors.New("disk full")
	for _, to := range []Reading{
		{func(extent.List) error { return mine }, func(int64, []byte) error { return nil }},
		{func(extent.List) error { return nil }, func(int64, []byte) error { return mine }},
	} {
		if err := Read(bytes.NewReader(good), d.Image, to); !errors.Is(err, mine) || errors.Is(err, ErrPack) {
			t.Errorf("got %v", err)
		}
	}
}

// TestBombs: a pack that asks for more than one may have is refused before
// anything of it is unpacked.
func TestBombs(t *testing.T) {
	img := Image{DataSize: 1 << 36}
	data := img.DataSize / verity.BlockSize
	never := Reading{func(extent.List) error { return errors.New("it was taken") }, func(int64, []byte) error { return errors.New("it was taken") }}
	for what, l := range map[string]extent.List{
		"too many blocks":    {{First: 0, Blocks: MaxBlocks + 1}},
		"the whole disk":     {{First: 0, Blocks: data}},
		"too many of hashes": {{First: data, Blocks: MaxHashes + 1}},
	} {
		b := raw(t, []byte(magic), img.Root[:], index(l), make([]byte, 1<<20))
		if err := Read(bytes.NewReader(b), img, never); !errors.Is(err, ErrPack) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// A stream that wants more memory than packs need: a window of 1 GiB.
	wide := append([]byte{0x11, 30}, raw(t, []byte(magic))...)
	if err := Read(bytes.NewReader(wide), img, never); !errors.Is(err, ErrPack) {
		t.Errorf("a wide window: %v", err)
	}
	// An endless stream of nothing: blocks of metadata.
	if err := Read(io.LimitReader(&nothings{}, 1<<20), img, never); !errors.Is(err, ErrPack) {
		t.Errorf("nothing: %v", err)
	}
}

// nothings is a Brotli stream of blocks of metadata, without an end.
type nothings struct{ begun bool }

func (n *nothings) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 0x06 // not the last, metadata, of no bytes
	}
	if !n.begun {
		b[0], n.begun = 0x0c, true // the same behind a window of 64 KiB, which is one bit
	}
	return len(b), nil
}

// TestArrives: blocks are handed on while the rest of a pack is on its way.
func TestArrives(t *testing.T) {
	d := newDisk(t, 700)
	b, made := d.write(t, extent.List{{First: 0, Blocks: 700}})
	r, w := io.Pipe()
	come := make(chan struct{}, made.Blocks)
	ended := make(chan error, 1)
	go func() {
		ended <- Read(r, d.Image, Reading{
			Index: func(extent.List) error { return nil },
			Block: func(int64, []byte) error { come <- struct{}{}; return nil },
		})
	}()
	if _, err := w.Write(b[:len(b)/2]); err != nil { // its second half does not compress
		t.Fatal(err)
	}
	for range made.Blocks / 2 { // waits for ever if they do not come
		<-come
	}
	if _, err := w.Write(b[len(b)/2:]); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(w.Close(), <-ended); err != nil {
		t.Error(err)
	}
}

// FuzzRead: whatever a mirror sends, only blocks of the image come out, each
// once, and what is refused is refused as a pack.
func FuzzRead(f *testing.F) {
	d := newDisk(f, 200)
	good, _ := d.write(f, extent.List{{First: 3, Blocks: 2}, {First: 150, Blocks: 1}, {First: 0, Blocks: 1}})
	f.Add(good, true)
	f.Add(good[:len(good)/2], true)
	f.Add(append(bytes.Clone(good), good...), true)
	plain := slices.Concat([]byte(magic), d.Root[:], index(extent.List{{First: 200, Blocks: 2}, {First: 3, Blocks: 1}}), d.block(200), d.block(201), d.block(3))
	f.Add(plain, false)
	f.Add(append(bytes.Clone(plain), 0), false)
	f.Fuzz(func(t *testing.T, b []byte, wire bool) {
		if !wire {
			b = raw(t, b)
		}
		g, err := d.unpack(t, b)
		if err != nil && !errors.Is(err, ErrPack) {
			t.Errorf("error of another kind: %v", err)
		}
		if err == nil && g.index.Blocks() != int64(len(g.blocks)) {
			t.Errorf("%d of %d blocks came", len(g.blocks), g.index.Blocks())
		}
	})
}
