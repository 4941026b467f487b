// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger/tiles"
)

// FuzzProof: a tlog-proof is read in one way, and none is taken in two.
func FuzzProof(f *testing.F) {
	f.Add(EntryProof{Index: 3, Proof: tlog.RecordProof{tlog.RecordHash(nil)}}.Format([]byte("a\n1\nAAAA\n\n— a b\n")))
	f.Add("c2sp.org/tlog-proof@v1\nindex 0\n\n")
	f.Add("c2sp.org/tlog-proof@v1\nindex -1\n\n")
	f.Fuzz(func(t *testing.T, s string) {
		index, proof, signed, err := parseProof(s)
		if err != nil {
			return
		}
		if again := (EntryProof{Index: index, Proof: proof}).Format(signed); again != s {
			t.Errorf("%q is read as %q", s, again)
		}
	})
}

// otherTile is a log of which one tile has other bytes, in place of what it has
// at without.
type otherTile struct {
	source
	path, without string
	b             []byte
}

func (o otherTile) get(ctx context.Context, path string, limit int) ([]byte, error) {
	switch path {
	case o.path:
		return o.b[:min(len(o.b), limit)], nil
	case o.without:
		return nil, fmt.Errorf("%s: %w", path, fs.ErrNotExist)
	}
	return o.source.get(ctx, path, limit)
}

// FuzzHashTile: whatever a server has for a tile of hashes, full, partial, a level
// up, or wider than what was asked for, a hash that is read is the right one.
func FuzzHashTile(f *testing.F) {
	dir := tiles.Dir(f.TempDir())
	w := tiles.NewWriter(dir)
	var all [][]byte
	for i := range tiles.Width + 44 {
		all = append(all, fmt.Appendf(nil, "entry %d", i))
	}
	if err := w.Append(all); err != nil {
		f.Fatal(err)
	}
	tree := w.Head()
	places := []struct{ path, without string }{{"tile/0/000", ""}, {"tile/0/001.p/44", ""}, {"tile/1/000.p/1", ""}, {"tile/0/001", "tile/0/001.p/44"}}
	right := make([][]byte, len(places))
	for i, p := range places {
		path := p.path
		if p.without != "" {
			path = p.without
		}
		b, err := dir.Read(path)
		if err != nil {
			f.Fatal(err)
		}
		right[i] = b
		for _, index := range []uint16{0, 255, 256, 299} {
			f.Add(b, uint8(i), index)
			f.Add(b[:len(b)-1], uint8(i), index)
			f.Add(append(bytes.Clone(b), b[:tlog.HashSize]...), uint8(i), index)
			f.Add(append([]byte{b[0] ^ 1}, b[1:]...), uint8(i), index)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte, which uint8, index uint16) {
		at := int(which) % len(places)
		i := int64(index) % tree.N
		from := otherTile{dirSource{dir}, places[at].path, places[at].without, b}
		got, err := newProven(t.Context(), from, tree).ReadHashes([]int64{tlog.StoredHashIndex(0, i)})
		if err == nil && got[0] != tlog.RecordHash(all[i]) {
			t.Errorf("%s with %d other bytes: the hash of entry %d is %s", places[at].path, len(b), i, got[0])
		}
		if err != nil && bytes.Equal(b, right[at]) {
			t.Errorf("%s as it is: %v", places[at].path, err)
		}
	})
}
