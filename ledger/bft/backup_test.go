// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// fill submits until the log has at least so many entries, and gives what it
// submitted by index.
func fill(t *testing.T, e *Engine, l *ledgertest.Log, name string, size int64) map[int64][]byte {
	t.Helper()
	must(t, e, l.Register(name, 1, nil)) // a start takes a moment
	k := &kept{entries: map[int64][]byte{}, want: -1}
	for i := 0; e.State().Size() < size; i++ {
		var all sync.WaitGroup
		for j := range 8 { // together, so that there are fewer blocks
			entry := l.Register(fmt.Sprintf("%s%d-%d", name, i, j), 1, nil)
			all.Go(func() {
				r, err := e.Submit(t.Context(), entry)
				if err == nil {
					err = k.add(r, entry)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		if all.Wait(); t.Failed() {
			t.FailNow()
		}
	}
	return k.entries
}

// quick is a client that starts from a snapshot.
func quick(t testing.TB, dir string, ledgers ...string) *ledger.Client {
	t.Helper()
	root, err := os.ReadFile(filepath.Join(dir, "root.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: ledgers, Snapshot: true})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func backup(t *testing.T, dir string) ([]byte, BackedUp) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	var b bytes.Buffer
	done, err := Backup(ctx, dir, &b)
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes(), done
}

// A backup is made while entries come in. What had a receipt when it began is
// in it, under the same indexes, and the restored ledger goes on.
func TestBackupWhileRunning(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{SnapshotEvery: 1 << 40})
	before := fill(t, e, l, "d", 20)
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			if _, err := e.Submit(t.Context(), l.Register(fmt.Sprintf("more%d", i), 1, nil)); err != nil {
				t.Error(err)
				return
			}
		}
	}()
	saved, info := backup(t, dir)
	close(stop)
	<-done
	if info.Entries < 20 {
		t.Errorf("the backup has %d entries", info.Entries)
	}
	shut(t, e)

	again := filepath.Join(t.TempDir(), "again")
	if _, err := Restore(t.Context(), bytes.NewReader(saved), again, 0); err != nil {
		t.Fatal(err)
	}
	f := open(t, again, Options{})
	if got := f.State().Size(); got != info.Entries {
		t.Errorf("restored with %d entries, want %d", got, info.Entries)
	}
	r := must(t, f, l.Register("after", 1, nil))
	if r.Index != info.Entries {
		t.Errorf("the next entry is %d, want %d", r.Index, info.Entries)
	}
	c := client(t, again, again)
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	for index, entry := range before {
		if got, err := c.Entries().Get(t.Context(), index); err != nil || !bytes.Equal(got, entry) {
			t.Errorf("entry %d is not in the restored log: %v", index, err)
		}
	}
	if _, wrong, err := c.Entries().CheckFiles(t.Context()); err != nil || len(wrong) > 0 {
		t.Errorf("files of the restored log: %v, %v", wrong, err)
	}
	// And it starts again.
	shut(t, f)
	g := open(t, again, Options{})
	if s := must(t, g, l.Register("later", 1, nil)); s.Index <= r.Index {
		t.Errorf("index %d after %d", s.Index, r.Index)
	}
}

// tarEnds are the places at which the members of a tar end.
func tarEnds(t *testing.T, b []byte) (ends []int) {
	t.Helper()
	in := bytes.NewReader(b)
	for r := tar.NewReader(in); ; {
		if _, err := r.Next(); errors.Is(err, io.EOF) {
			return ends
		} else if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, r); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, (len(b)-in.Len()+511)/512*512)
	}
}

// A backup that lacks, adds or changes something makes no ledger.
func TestBackupIsChecked(t *testing.T) {
	l, dir := fresh(t, lease)
	e := open(t, dir, Options{})
	fill(t, e, l, "d", 10)
	saved, _ := backup(t, dir)
	edit := func(f func(name string, b []byte) (string, []byte)) []byte {
		var out bytes.Buffer
		w := tar.NewWriter(&out)
		r := tar.NewReader(bytes.NewReader(saved))
		for {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			b, err2 := io.ReadAll(r)
			if err != nil || err2 != nil {
				t.Fatal(err, err2)
			}
			name, b := f(h.Name, b)
			if name == "" {
				continue
			}
			if err := w.WriteHeader(&tar.Header{Name: name, Mode: h.Mode, Size: int64(len(b))}); err != nil {
				t.Fatal(err)
			}
			if _, err := w.Write(b); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		return out.Bytes()
	}
	flip := func(which string, at int) func(string, []byte) (string, []byte) {
		return func(name string, b []byte) (string, []byte) {
			if strings.HasPrefix(name, which) {
				b[(at+len(b))%len(b)] ^= 1
			}
			return name, b
		}
	}
	for what, f := range map[string]func(string, []byte) (string, []byte){
		"no key": func(name string, b []byte) (string, []byte) {
			if name == "keys/consensus.json" {
				name = ""
			}
			return name, b
		},
		"a file above": func(name string, b []byte) (string, []byte) {
			if name == "mesh.json" || name == "validator.json" {
				name = "../" + name
			}
			return name, b
		},
		"another entry":     flip("log/tile/entries/", 300),
		"another hash":      flip("log/tile/0/", 40),
		"another snapshot":  flip("log/snapshot", 100),
		"another consensus": flip("log/consensus", 900),
		"another trust":     flip("root.json", 400),
	} {
		to := filepath.Join(t.TempDir(), "x")
		if _, err := Restore(t.Context(), bytes.NewReader(edit(f)), to, 0); err == nil {
			t.Errorf("%s: was restored", what)
		} else if _, err := os.Stat(to); err == nil {
			t.Errorf("%s: left %s behind", what, to)
		}
	}
	// An empty folder that was made before, which its user cannot make again,
	// stays, and stays empty.
	made := t.TempDir()
	_, err := Restore(t.Context(), bytes.NewReader(saved[:len(saved)/2]), made, 0)
	if list, gone := os.ReadDir(made); err == nil || gone != nil || len(list) > 0 {
		t.Errorf("after a restore that failed (%v) the folder has %v, %v", err, list, gone)
	}
	// Cut off inside a member, inside a header, between two, before the last, and
	// before anything: each time it is said that it is cut off.
	ends := tarEnds(t, saved)
	for _, n := range []int{len(saved) / 2, ends[3] + 100, ends[3], ends[len(ends)-2], 0} {
		to := filepath.Join(t.TempDir(), "x")
		if _, err := Restore(t.Context(), bytes.NewReader(saved[:n]), to, 0); !errors.Is(err, ErrCutOff) {
			t.Errorf("%d of %d bytes of a backup: %v", n, len(saved), err)
		}
		if _, err := os.Stat(to); err == nil {
			t.Errorf("%d of %d bytes of a backup left %s behind", n, len(saved), to)
		}
	}
	if _, err := Restore(t.Context(), bytes.NewReader(edit(func(name string, b []byte) (string, []byte) {
		if name == "log/snapshot" {
			name = ""
		}
		return name, b
	})), filepath.Join(t.TempDir(), "x"), 0); err == nil || errors.Is(err, ErrCutOff) || !strings.Contains(err.Error(), "log/snapshot is not in it") {
		t.Errorf("a backup whose end is there: %v", err)
	}
	if _, err := Restore(t.Context(), bytes.NewReader(saved), dir, 0); err == nil {
		t.Error("restored over a ledger")
	}
}

// A server that prunes can be read by who starts from its snapshot, says to
// others what is gone and who has it, gives receipts again, and starts again
// itself.
func TestPrune(t *testing.T) {
	l, dir := fresh(t, lease)
	archive := filepath.Join(t.TempDir(), "archive")
	o := Options{SnapshotEvery: 100, Keep: 100, Archives: []string{"https://archive.example"}}
	e := open(t, dir, o)
	early := l.Register("early", 1, nil)
	first := must(t, e, early)
	behind := quick(t, dir, dir)
	if err := behind.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	fill(t, e, l, "d", 500)
	root, err := os.ReadFile(filepath.Join(dir, "root.json"))
	if err != nil {
		t.Fatal(err)
	}
	m, err := ledger.OpenMirror(t.Context(), archive, 1000, ledger.ClientConfig{Root: root, Ledgers: []string{dir}})
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	mid := l.Register("mid", 1, nil)
	middle := must(t, e, mid)
	fill(t, e, l, "e", 900)
	// The second bundle goes when a snapshot of more than 768 is there.
	gone := filepath.Join(string(LogDir(dir)), "tile", "entries", "001")
	waitFor(t, "the second bundle to be pruned", func() bool {
		_, err := os.Stat(gone)
		return errors.Is(err, os.ErrNotExist)
	})
	waitFor(t, "CometBFT to prune its blocks", func() bool {
		must(t, e, l.Register(fmt.Sprintf("p%d", e.State().Size()), 1, nil))
		return e.blocks.Base() > 1
	})
	s := httptest.NewServer(ledger.Handler(LogDir(dir), e, slog.New(slog.DiscardHandler)))
	defer s.Close()

	// Who starts from the snapshot, and who was away for long.
	for name, c := range map[string]*ledger.Client{"new": quick(t, dir, s.URL), "away": behind} {
		if err := c.Sync(t.Context()); err != nil || c.State().StateRoot() != e.State().StateRoot() {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Who wants everything.
	whole := client(t, dir, s.URL)
	if err := whole.Sync(t.Context()); !errors.Is(err, ledger.ErrPruned) || errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), "https://archive.example") {
		t.Errorf("an auditor is told: %v", err)
	}
	resp, err := s.Client().Get(s.URL + "/tile/entries/001")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != 410 || !strings.Contains(string(b), "https://archive.example") {
		t.Errorf("%s: %s, %v", resp.Status, b, err)
	}
	both := client(t, dir, s.URL, archive)
	if err := both.Sync(t.Context()); err != nil || both.Checkpoint().N < 500 {
		t.Errorf("with an archive beside it: %v", err)
	}
	// Receipts of what is in the first bundle, of what was pruned, and of what is there.
	for i, want := range map[int64][]byte{first.Index: early, middle.Index: mid} {
		r, err := whole.Submit(t.Context(), want)
		if err != nil || r.Index != i {
			t.Errorf("receipt of entry %d again: %+v, %v", i, r, err)
		}
	}
	shut(t, e)
	f := open(t, dir, o)
	must(t, f, l.Register("again", 1, nil))
	// And a backup of it is a ledger.
	saved, info := backup(t, dir)
	to := filepath.Join(t.TempDir(), "x")
	if _, err := Restore(t.Context(), bytes.NewReader(saved), to, 0); err != nil {
		t.Fatal(err)
	}
	g := open(t, to, Options{})
	if g.State().Size() != info.Entries {
		t.Errorf("restored %d of %d", g.State().Size(), info.Entries)
	}
	must(t, g, l.Register("restored", 1, nil))
}

// A server that joins from a snapshot of servers that have pruned the past
// becomes a validator like any other; so does one restored from a backup.
func TestJoinFromSnapshot(t *testing.T) {
	g := newGroup(t, 1)
	o := Options{SnapshotEvery: 50, Keep: 50}
	e := open(t, g.dirs[0], o)
	fill(t, e, g.log, "d", 700)
	waitFor(t, "the past to be pruned", func() bool {
		must(t, e, g.log.Register(fmt.Sprintf("p%d", e.State().Size()), 1, nil))
		return e.blocks.Base() > 1
	})
	s := httptest.NewServer(ledger.Handler(LogDir(g.dirs[0]), e, slog.New(slog.DiscardHandler)))
	defer s.Close()
	g.joinFrom(quick(t, g.dirs[0], s.URL), true)
	second := start(t, g.dirs[1], "") // a process: a closed engine's connections stay half open in one
	via := func(x *server, name string) {
		entry := g.log.Register(name, 1, nil)
		waitFor(t, "a receipt for "+name, func() bool {
			_, err := quick(t, g.dirs[0], x.url).Submit(t.Context(), entry)
			return err == nil
		})
	}
	waitFor(t, "the rotation", func() bool {
		_, err := e.Submit(t.Context(), g.rotation(e.State(), 0, 1))
		return err == nil
	})
	for i := range 3 {
		must(t, e, g.log.Register(fmt.Sprintf("first%d", i), 1, nil))
		via(second, fmt.Sprintf("second%d", i))
	}
	saved, _ := backup(t, g.dirs[1])
	must(t, e, g.log.Register("late", 1, nil))
	second.kill(t)
	to := filepath.Join(t.TempDir(), "again")
	if _, err := Restore(t.Context(), bytes.NewReader(saved), to, 0); err != nil { // of two, none can be done without
		t.Fatal(err)
	}
	back := start(t, to, "")
	via(back, "restored")
	cl := quick(t, g.dirs[0], s.URL, back.url)
	waitFor(t, "both to publish the same", func() bool {
		return cl.Sync(t.Context()) == nil && cl.State().StateRoot() == e.State().StateRoot() && len(cl.Checkpoint().Cosigners) == 2
	})
	for _, x := range cl.Ledgers() {
		if x.State == "forged" || x.State == "forked" {
			t.Errorf("%+v", x)
		}
	}
}
