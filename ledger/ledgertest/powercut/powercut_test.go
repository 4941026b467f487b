// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
)

// TestMain is also the process that mounts: in a namespace of users and mounts
// of its own, so that nothing is left of it.
func TestMain(m *testing.M) {
	if os.Getenv("ZOS_TEST_POWERCUT") != "" {
		if err := errors.Join(inside()...); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

func TestDisk(t *testing.T) {
	dir := t.TempDir()
	for _, d := range []string{"old/deep", "mnt", "plain"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "old/deep/file"), []byte("from before"), 0o600); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "ZOS_TEST_POWERCUT=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	out := &bytes.Buffer{}
	cmd.Stdout, cmd.Stderr = out, out
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIP nothing can be mounted: a namespace of users and mounts is refused: %v", err)
	}
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if !strings.Contains(out.String(), "all was looked at") {
		t.Errorf("it ended early: %s", out)
	}
}

// world is a mounted disk and what went wrong on it.
type world struct {
	disk    *Disk
	unmount func() error
	open    []*os.File
	errs    []error
}

func (w *world) must(err error) {
	if err != nil {
		w.errs = append(w.errs, err)
	}
}

// has wants a file to have this content, "-" for none.
func (w *world) has(when, path, want string) {
	got, err := os.ReadFile("mnt/" + path)
	if errors.Is(err, os.ErrNotExist) {
		got, err = []byte("-"), nil
	}
	if err != nil || string(got) != want {
		w.errs = append(w.errs, fmt.Errorf("%s: %s has %q, %w, want %q", when, path, got, err, want))
	}
}

// write writes a whole file, without an fsync.
func (w *world) write(path, content string) *os.File {
	f, err := os.Create("mnt/" + path)
	w.must(err)
	w.open = append(w.open, f)
	_, err = f.WriteString(content)
	w.must(err)
	return f
}

func (w *world) folder(path string) {
	f, err := os.Open("mnt/" + path)
	w.must(err)
	w.must(f.Sync())
	w.must(f.Close())
}

// cut lets the power go at the next fsync, and come back.
func (w *world) cut(l Loss, seed uint64) *Cut {
	var killed atomic.Bool
	w.disk.CutAt(1, func() { killed.Store(true) })
	f, err := os.Open("mnt/deep")
	w.must(err)
	if err := f.Sync(); !errors.Is(err, syscall.EIO) || !killed.Load() {
		w.errs = append(w.errs, fmt.Errorf("the fsync at the cut: %w; killed %t", err, killed.Load()))
	}
	_ = f.Close()
	w.must(w.unmount())
	c := w.disk.Restart(l, rand.New(rand.NewPCG(seed, 1)))
	w.mount()
	return c
}

func (w *world) mount() {
	var err error
	w.disk.CutAt(0, nil)
	w.unmount, err = w.disk.Mount("mnt")
	w.must(err)
}

func inside() []error {
	disk, err := New("old")
	if err != nil {
		return []error{err}
	}
	w := &world{disk: disk}
	if w.mount(); len(w.errs) > 0 {
		return w.errs
	}
	w.has("at first", "deep/file", "from before")
	w.forgets()
	w.orders()
	w.tears()
	w.asPlain()
	w.must(w.unmount())
	fmt.Println("all was looked at")
	return w.errs
}

// forgets: what was fsynced is there after a cut, and nothing else is.
func (w *world) forgets() {
	a, b := w.write("a", "fsynced"), w.write("b", "not fsynced")
	w.must(a.Sync())
	_, err := a.WriteString(", and more")
	w.must(err)
	s, err := os.OpenFile("mnt/s", os.O_WRONLY|os.O_CREATE|os.O_SYNC, 0o600)
	w.must(err)
	_, err = s.WriteString("O_SYNC")
	w.must(err)
	for _, f := range []*os.File{a, b, s} {
		w.must(f.Close())
	}
	w.has("before the cut", "a", "fsynced, and more")
	w.has("before the cut", "b", "not fsynced")
	c := w.cut(Dropped, 0)
	if c == nil || c.Writes != 2 || c.Bytes != 21 || c.What != "/deep" {
		w.errs = append(w.errs, fmt.Errorf("the cut took %+v", c))
	}
	w.has("after the cut", "a", "fsynced")
	w.has("after the cut", "b", "") // its name came with the fsync of s: one journal
	w.has("after the cut", "s", "O_SYNC")
	w.has("after the cut", "deep/file", "from before")
}

// orders: what an fsync does for other names.
func (w *world) orders() {
	for order, want := range map[Order]string{Ordered: "new", Loose: "old"} {
		w.order(order)
		w.must(w.write("r", "old").Sync())
		w.folder("")
		n := w.write("r.new", "new")
		w.must(n.Sync())
		w.must(os.Rename("mnt/r.new", "mnt/r"))
		w.must(w.write("other", "x").Sync())
		w.close()
		w.cut(Dropped, 0)
		w.has(fmt.Sprint("order ", order), "r", want)
		w.must(os.Mkdir("mnt/d", 0o755))
		w.must(w.write("d/f", "deep").Sync())
		w.close()
		w.cut(Dropped, 0)
		w.has(fmt.Sprint("order ", order), "d/f", "deep")
		w.must(os.Remove("mnt/d/f"))
		w.folder("d")
		w.cut(Dropped, 0)
		w.has(fmt.Sprint("order ", order), "d/f", "-")
		w.must(os.Remove("mnt/d"))
		w.folder("")
	}
	w.order(Ordered)
}

// order changes the order of names, while the kernel may still ask for something.
func (w *world) order(o Order) {
	w.disk.mu.Lock()
	defer w.disk.mu.Unlock()
	w.disk.Order = o
}

// close closes what write opened: nothing can be unmounted before.
func (w *world) close() {
	for _, f := range w.open {
		if err := f.Close(); err != nil && !errors.Is(err, os.ErrClosed) {
			w.errs = append(w.errs, err)
		}
	}
	w.open = nil
}

// tears: beside what was fsynced, a part of the rest.
func (w *world) tears() {
	lengths := map[int]bool{}
	for seed := range uint64(40) {
		l := []Loss{Torn, Zeros}[seed%2]
		f := w.write("t", "kept ")
		w.must(f.Sync())
		for range 3 {
			_, err := f.WriteString("xyz")
			w.must(err)
		}
		w.must(f.Close())
		w.cut(l, seed)
		got, err := os.ReadFile("mnt/t")
		w.must(err)
		want := "kept xyzxyzxyz"
		if l == Zeros {
			want = "kept " + strings.Repeat("\x00", 9)
		}
		if len(got) < 5 || !strings.HasPrefix(want, string(got)) {
			w.errs = append(w.errs, fmt.Errorf("%s: %q", l, got))
		}
		lengths[len(got)] = true
	}
	if len(lengths) < 5 {
		w.errs = append(w.errs, fmt.Errorf("torn to %v only", lengths))
	}
}

// asPlain does the same to the disk and to a plain folder.
func (w *world) asPlain() {
	rng := rand.New(rand.NewPCG(7, 7))
	name := func() string { return fmt.Sprintf("n%d", rng.IntN(12)) }
	for i := range 3000 {
		kind, from, to, size := rng.IntN(7), name(), name(), rng.IntN(9000)
		text := bytes.Repeat([]byte{byte('a' + i%26)}, rng.IntN(6000))
		var said [2]string
		for j, base := range []string{"mnt", "plain"} {
			from, to := filepath.Join(base, from), filepath.Join(base, to)
			var err error
			switch kind {
			case 0:
				err = os.Mkdir(from, 0o755)
			case 1:
				err = os.Remove(from)
			case 2:
				err = os.Rename(from, to)
			case 3:
				err = os.Truncate(from, int64(size))
			case 4:
				err = os.WriteFile(from, text, 0o644)
			default:
				var f *os.File
				if f, err = os.OpenFile(from, os.O_RDWR|os.O_CREATE|map[bool]int{true: os.O_APPEND}[kind == 5], 0o644); err != nil {
					break
				}
				if kind == 6 {
					_, err = f.WriteAt(text, int64(size))
				} else {
					_, err = f.Write(text)
				}
				err = errors.Join(err, f.Close())
			}
			var errno syscall.Errno
			errors.As(err, &errno)
			said[j] = fmt.Sprint(err != nil, errno)
		}
		if said[0] != said[1] {
			w.errs = append(w.errs, fmt.Errorf("step %d, kind %d: %v", i, kind, said))
		}
	}
	for i := range 12 {
		name := fmt.Sprintf("n%d", i)
		a, errA := os.ReadFile("mnt/" + name)
		b, errB := os.ReadFile("plain/" + name)
		if !bytes.Equal(a, b) || (errA == nil) != (errB == nil) {
			w.errs = append(w.errs, fmt.Errorf("%s: %d and %d bytes, %w, %w", name, len(a), len(b), errA, errB))
		}
	}
}
