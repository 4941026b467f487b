// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

const origin = "test.example/log"

func keys(t testing.TB) (Policy, Signers) {
	t.Helper()
	logKey, logV, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	valKey, valV, err := note.GenerateKey(rand.Reader, origin+"/validator")
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := CosignerKey(valV)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSigners(logKey, valKey)
	if err != nil {
		t.Fatal(err)
	}
	return Policy{origin, []string{logV}, []string{cosigner}, 1}, s
}

// hashes is the whole tree in memory, made by x/mod's own functions: the
// judge of ours.
type hashes []tlog.Hash

func (h hashes) ReadHashes(indexes []int64) ([]tlog.Hash, error) {
	var all []tlog.Hash
	for _, i := range indexes {
		all = append(all, h[i])
	}
	return all, nil
}

func (h *hashes) add(t testing.TB, n int64, data []byte) {
	t.Helper()
	more, err := tlog.StoredHashes(n, data, *h)
	if err != nil {
		t.Fatal(err)
	}
	*h = append(*h, more...)
}

func publish(t testing.TB, w *Writer, s Signers) {
	t.Helper()
	tree := w.Head()
	signed, err := s.Sign(origin, tree)
	if err == nil {
		err = w.Publish(tree.N, signed)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestTreeAgreesWithTlog(t *testing.T) {
	var tree Tree
	var judge hashes
	for n := range int64(600) {
		want, err := tlog.TreeHash(n, judge)
		if err != nil {
			t.Fatal(err)
		}
		if tree.Size() != n || n > 0 && tree.Hash() != want {
			t.Fatalf("size %d: hash %s, want %s", n, tree.Hash(), want)
		}
		old, oldHash := tree, tree.Hash()
		data := fmt.Appendf(nil, "entry %d", n)
		judge.add(t, n, data)
		tree = tree.Append(tlog.RecordHash(data))
		if old.Hash() != oldHash {
			t.Fatalf("size %d: Append changed the tree that it came from", n)
		}
	}
}

// The files are those that x/mod's functions say, after any split in blocks.
func TestWriterAgreesWithTlog(t *testing.T) {
	policy, signers := keys(t)
	dir := Dir(t.TempDir())
	w := NewWriter(dir)
	var judge hashes
	var size int64
	for _, block := range []int{1, 2, 252, 1, 1, 300, 511, 1} {
		var entries [][]byte
		for range block {
			e := fmt.Appendf(nil, "entry %d", size)
			judge.add(t, size, e)
			entries = append(entries, e)
			size++
		}
		if err := w.Append(entries); err != nil {
			t.Fatal(err)
		}
		publish(t, w, signers)
		for _, tile := range tlog.NewTiles(Height, 0, size) {
			want, err := tlog.ReadTileData(tile, judge)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := dir.Read(Path(tile)); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("size %d: %s is not as it should be: %v", size, Path(tile), err)
			}
			if tile.L > 0 {
				continue
			}
			b, err := dir.Read(BundlePath(tile.N, tile.W))
			if err != nil {
				t.Fatal(err)
			}
			list, used, err := CutBundle(b, tile.W)
			if err != nil || used != len(b) || string(list[tile.W-1]) != fmt.Sprintf("entry %d", tile.N*Width+int64(tile.W)-1) {
				t.Fatalf("bundle %d: %v", tile.N, err)
			}
		}
		b, err := dir.Read("checkpoint")
		if err != nil {
			t.Fatal(err)
		}
		cp, err := policy.Open(b)
		want, _ := tlog.TreeHash(size, judge)
		if err != nil || cp.N != size || cp.Hash != want || len(cp.Cosigners) != 1 {
			t.Fatalf("checkpoint %+v, %v", cp, err)
		}
	}
	// Few old partial files stay; a narrower one is cut from a wider.
	count := 0
	err := filepath.WalkDir(string(dir), func(_ string, d fs.DirEntry, err error) error {
		if !d.IsDir() {
			count++
		}
		return err
	})
	if err != nil || count > 30 {
		t.Errorf("%d files for %d entries: %v", count, size, err)
	}
	if b, err := dir.Read("tile/0/004.p/7"); err != nil || len(b) != 7*tlog.HashSize {
		t.Errorf("narrow tile has %d bytes: %v", len(b), err)
	}
	if _, err := dir.Read("tile/0/004.p/200"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("tile that is not there yet: %v", err)
	}
}

// A writer that was restored goes on as if it had never stopped, also over
// files that a crash left beyond the checkpoint.
func TestWriterRestores(t *testing.T) {
	_, signers := keys(t)
	dir := Dir(t.TempDir())
	entry := func(i int) []byte { return fmt.Appendf(nil, "entry %d", i) }
	w := NewWriter(dir)
	for i := range 258 {
		if err := w.Append([][]byte{entry(i)}); err != nil {
			t.Fatal(err)
		}
	}
	publish(t, w, signers)
	if err := w.Append([][]byte{entry(258), entry(259)}); err != nil { // and no checkpoint
		t.Fatal(err)
	}
	again := NewWriter(dir)
	for i := range 258 {
		again.Restore(entry(i))
	}
	if err := again.Append([][]byte{entry(258), entry(259)}); err != nil {
		t.Fatal(err)
	}
	publish(t, again, signers)
	if tree := again.Head(); tree.Hash != w.Tree().Hash() {
		t.Errorf("tree %v", tree)
	}
	// A checkpoint never covers what is not on the disk.
	if err := again.Publish(261, nil); err == nil {
		t.Error("published an entry that is not there")
	}
}

// Several validators sign by themselves; anybody puts the checkpoint together,
// and whatever is not valid stays out of it.
func TestMerge(t *testing.T) {
	tree := tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("x"))}
	other := tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("y"))}
	all := Policy{Origin: origin, Quorum: 3}
	var lines [][]string
	var lies []string
	for range 4 {
		p, s := keys(t)
		all.Keys, all.Cosigners = append(all.Keys, p.Keys...), append(all.Cosigners, p.Cosigners...)
		l, err := s.Lines(origin, tree)
		if err != nil || len(l) != 2 {
			t.Fatal(l, err)
		}
		lines = append(lines, l)
		if l, err = s.Lines(origin, other); err != nil {
			t.Fatal(err)
		}
		lies = append(lies, l...)
	}
	join := func(from ...[]string) []string { return slices.Concat(from...) }
	for _, tt := range []struct {
		name  string
		lines []string
		says  string // "" for a checkpoint that holds
	}{
		{"three of four", join(lines[2], lines[0], lines[3]), ""},
		{"all, in any order, twice", join(lines[3], lines[2], lines[1], lines[0], lines[1]), ""},
		{"two of four", join(lines[0], lines[1]), "2 of 3 cosignatures"},
		{"one of them three times", join(lines[0], lines[0], lines[0]), "1 of 3 cosignatures"},
		{"two and a signature of another tree", join(lines[0], lines[1], lies), "2 of 3 cosignatures"},
		{"three and rubbish", join([]string{"", "— " + origin, "— " + origin + " AAAA", lines[0][0] + "\r", strings.Repeat("x", 5000)}, lines[0], lines[1], lines[2], lies), ""},
		{"cosignatures alone", []string{lines[0][1], lines[1][1], lines[2][1]}, "not signed by a log key"},
		{"logs alone", []string{lines[0][0], lines[1][0], lines[2][0]}, "0 of 3 cosignatures"},
		{"nothing", nil, "malformed note"},
	} {
		signed, _, err := all.Merge(tree, tt.lines)
		if err != nil {
			t.Fatal(err)
		}
		cp, err := all.Open(signed)
		if tt.says == "" && (err != nil || cp.Tree != tree) || tt.says != "" && (err == nil || !strings.Contains(err.Error(), tt.says)) {
			t.Errorf("%s: %v\n%s", tt.name, err, signed)
		}
		if complete, err := all.Complete(tree, tt.lines); (err == nil) != (tt.says == "") || err == nil && !bytes.Equal(complete, signed) {
			t.Errorf("%s: complete is %v, %q", tt.name, err, complete)
		}
		// Whoever knows but one of them reads the same bytes.
		one := Policy{origin, all.Keys[:1], all.Cosigners[:1], 1}
		if _, err := one.Open(signed); tt.says == "" && err != nil {
			t.Errorf("%s, with one known validator: %v", tt.name, err)
		}
	}
}

func TestCheckpointPolicy(t *testing.T) {
	policy, signers := keys(t)
	other, _ := keys(t)
	tree := tlog.Tree{N: 7, Hash: tlog.RecordHash([]byte("x"))}
	good, err := signers.Sign(origin, tree)
	if err != nil {
		t.Fatal(err)
	}
	if cp, err := policy.Open(good); err != nil || cp.TimeSec == 0 {
		t.Fatalf("%+v, %v", cp, err)
	}
	two := policy
	two.Cosigners, two.Quorum = append([]string{other.Cosigners[0]}, policy.Cosigners...), 2
	if _, err := two.Open(good); err == nil || !strings.Contains(err.Error(), "1 of 2 cosignatures") {
		t.Errorf("one short: %v", err)
	}
	twice := policy
	key, err := newCosignatureKey(policy.Cosigners[0], keyCosignature)
	if err != nil {
		t.Fatal(err)
	}
	renamed := formatKey(key.name+"2", keyCosignature, key.key)
	twice.Cosigners, twice.Quorum = []string{policy.Cosigners[0], renamed}, 2
	if _, err := twice.Open(good); err == nil || !strings.Contains(err.Error(), "twice") {
		t.Errorf("one key under two names: %v", err)
	}
	for _, p := range []Policy{{}, {Origin: origin, Keys: policy.Keys}, {origin, nil, policy.Cosigners, 1}, {origin, policy.Keys, policy.Cosigners, 0}, {origin, policy.Keys, policy.Cosigners, 2}, {"x", policy.Keys, policy.Cosigners, 1}} {
		if p.Validate() == nil {
			t.Errorf("%+v was accepted", p)
		}
	}
	// Every byte counts, also the unused bits of base64.
	for i := range good {
		for bit := range 8 {
			bad := bytes.Clone(good)
			bad[i] ^= 1 << bit
			if _, err := policy.Open(bad); err == nil {
				t.Errorf("bit %d of byte %d of the checkpoint does not matter", bit, i)
			}
		}
	}
}

func TestWriteFileLeavesTheOldOne(t *testing.T) {
	path := filepath.Join(t.TempDir(), "no-such-folder", "f")
	if err := WriteFile(path, []byte("x"), 0o600); err == nil {
		t.Error("wrote into a folder that is not there")
	}
	path = filepath.Join(t.TempDir(), "f")
	for _, s := range []string{"old", "new"} {
		if err := WriteFileSync(path, []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	list, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(list) != 1 {
		t.Errorf("%d files, %v", len(list), err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info, err)
	}
}

func FuzzOpen(f *testing.F) {
	policy, signers := keys(f)
	good, err := signers.Sign(origin, tlog.Tree{N: 7})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte("a\n1\n\n\n— a b\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if cp, err := policy.Open(b); err == nil && cp.N != 7 {
			t.Errorf("accepted %q", b)
		}
	})
}

func FuzzCutBundle(f *testing.F) {
	f.Add(AppendEntry(AppendEntry(nil, []byte("a")), nil), 2)
	f.Add([]byte{0, 5, 1}, 1)
	f.Fuzz(func(t *testing.T, b []byte, w int) {
		w &= Width - 1
		list, used, err := CutBundle(b, w)
		if err != nil {
			return
		}
		var again []byte
		for _, e := range list {
			again = AppendEntry(again, e)
		}
		if len(list) != w || !bytes.Equal(again, b[:used]) {
			t.Errorf("%d entries from %x", len(list), b)
		}
	})
}

// A write that fails leaves no temporary file, however many files it was about.
func TestWriteFails(t *testing.T) {
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "checkpoint", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	w := NewWriter(Dir(dir))
	var entries [][]byte
	for i := range 40 * Width { // more files than are open at once
		entries = append(entries, []byte{byte(i), byte(i >> 8)})
	}
	if err := w.Append(entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Publish(w.Head().N, []byte("signed")); err == nil || !strings.Contains(err.Error(), "checkpoint") {
		t.Errorf("a checkpoint in place of a folder: %v", err)
	}
	files := 0
	err := filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if strings.HasPrefix(d.Name(), ".new-") {
			t.Errorf("%s is left", path)
		}
		if d.Type().IsRegular() {
			files++
		}
		return err
	})
	if err != nil || files != 40+40+1 {
		t.Errorf("%d files, %v", files, err)
	}
}

// TestBegin: nothing that is being written can be read under a checkpoint before
// Finish, and what cannot be signed or written never is.
func TestBegin(t *testing.T) {
	root := t.TempDir()
	dir := Dir(root)
	w := NewWriter(dir)
	sign := func(tree tlog.Tree) ([]byte, error) { return fmt.Append(nil, tree.N), nil }
	seen := func(want string) {
		t.Helper()
		if b, err := dir.Read("checkpoint"); string(b) != want || want == "" && !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("the checkpoint is %q, %v, want %q", b, err, want)
		}
		if left, err := filepath.Glob(filepath.Join(root, ".new-*")); err != nil || len(left) > 0 {
			t.Errorf("left over: %v, %v", left, err)
		}
	}
	first := w.Begin([][]byte{{1}}, sign)
	first.Wait()
	if _, err := dir.Read("checkpoint"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a checkpoint is there before Finish: %v", err)
	}
	if shown, err := first.Finish(); err != nil || !shown {
		t.Fatal(shown, err)
	}
	seen("1")
	if shown, err := w.Begin([][]byte{{2}}, func(tlog.Tree) ([]byte, error) { return nil, nil }).Finish(); err != nil || shown {
		t.Errorf("without a checkpoint: %v, %v", shown, err)
	}
	seen("1")
	refused := errors.New("no signature for this")
	if shown, err := w.Begin([][]byte{{3}}, func(tlog.Tree) ([]byte, error) { return nil, refused }).Finish(); !errors.Is(err, refused) || shown {
		t.Errorf("not signed: %v, %v", shown, err)
	}
	seen("1")
	folder := filepath.Join(root, "tile", "entries", "000.p")
	if err := os.RemoveAll(folder); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(folder, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if shown, err := w.Begin([][]byte{{4}}, sign).Finish(); err == nil || shown || !strings.Contains(err.Error(), "write tiles") {
		t.Errorf("a file for a folder: %v, %v", shown, err)
	}
	seen("1")
}

// TestSettle: what older checkpoints need stays until the newest one's name is on
// the disk, over however many tiles; a checkpoint never goes back.
func TestSettle(t *testing.T) {
	dir := Dir(t.TempDir())
	w := NewWriter(dir)
	count := func(folder string) int {
		list, err := os.ReadDir(filepath.Join(string(dir), folder))
		if err != nil {
			t.Fatal(err)
		}
		return len(list)
	}
	for i := range Width + 10 {
		shown, err := w.Begin([][]byte{{byte(i), byte(i >> 8)}}, func(tree tlog.Tree) ([]byte, error) {
			return fmt.Append(nil, tree.N), nil
		}).Finish()
		if err != nil || !shown {
			t.Fatalf("entry %d: %v, %v", i, shown, err)
		}
	}
	for _, folder := range []string{"tile/0/000.p", "tile/entries/000.p"} {
		if n := count(folder); n != Width-1 {
			t.Errorf("%s has %d files before the checkpoint is settled", folder, n)
		}
	}
	if err := w.Show(5, []byte("5")); err != nil {
		t.Fatal(err)
	}
	if b, err := dir.Read("checkpoint"); err != nil || string(b) != "266" {
		t.Errorf("the checkpoint is %s, %v", b, err)
	}
	if err := w.Settle(); err != nil {
		t.Fatal(err)
	}
	for folder, want := range map[string]int{"tile/0/000.p": 1, "tile/0/001.p": 2, "tile/entries/000.p": 1, "tile/entries/001.p": 2, "tile/1/000.p": 1} {
		if n := count(folder); n != want {
			t.Errorf("%s has %d files, want %d", folder, n, want)
		}
	}
	if left, err := filepath.Glob(filepath.Join(string(dir), ".new-*")); err != nil || len(left) > 0 {
		t.Errorf("left over: %v, %v", left, err)
	}
}
