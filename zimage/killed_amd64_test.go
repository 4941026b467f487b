// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage/faulty"
)

const (
	plotEnv = "ZOS_TOOL_PLOT"
	noRoom  = 3 // exit code
)

// plotImages are two that share a file.
func plotImages(t testing.TB) [2]Source {
	shared := file("bin/app", noise(600<<10, 1))
	return [2]Source{ociImage(t, []item{folder("bin"), shared, file("etc", noise(5000, 2))}), ociImage(t, []item{folder("bin"), shared, file("var", noise(90<<10, 3))})}
}

// play is every deed of the tool's store, once.
func play(t testing.TB, dir string) (ids [2]string, blob string, err error) {
	s, err := OpenStore(dir)
	if err != nil {
		return ids, "", err
	}
	for i, src := range plotImages(t) {
		if _, ids[i], err = Convert(context.Background(), src, "linux/amd64", s, nil); err != nil {
			return ids, "", err
		}
	}
	blob, err = s.AddBlob(filepath.Join(filepath.Dir(dir), "kernel"))
	return ids, blob, err
}

// TestStorePlot is not a test but the program that TestStoreAtEveryStep runs.
func TestStorePlot(t *testing.T) {
	dir := os.Getenv(plotEnv)
	if dir == "" {
		return
	}
	_, _, err := play(t, dir)
	if err == nil {
		os.Exit(0)
	}
	fmt.Fprintln(os.Stderr, err)
	if errors.Is(err, unix.ENOSPC) {
		os.Exit(noRoom)
	}
	os.Exit(1)
}

// TestStoreAtEveryStep kills the tool before each of the calls with which it
// changes its store, and lets the disk be full from each on. Whatever then has
// a name is right, and the next attempt makes what the first would have made.
// Every thirteenth step is tried, every one with ZOS_FAULTS=all (make test-image).
func TestStoreAtEveryStep(t *testing.T) {
	kernel := noise(300<<10, 9)
	var want [2]string
	run := func(tr *faulty.Tracer) (dir string, code int, killed bool, output string) {
		root := t.TempDir()
		put(t, filepath.Join(root, "kernel"), kernel)
		dir = filepath.Join(root, "store")
		out, err := os.Create(filepath.Join(root, "output"))
		if err != nil {
			t.Fatal(err)
		}
		defer out.Close() // only written by the child
		cmd := exec.Command(os.Args[0], "-test.run=^TestStorePlot$")
		cmd.Env = append(os.Environ(), plotEnv+"="+dir, "GOMAXPROCS=1")
		cmd.Stdout, cmd.Stderr = out, out
		tr.Dir = dir
		status, err := tr.Run(cmd)
		if err != nil {
			t.Fatalf("trace: %v", err)
		}
		said, err := os.ReadFile(out.Name())
		if err != nil {
			t.Fatal(err)
		}
		return dir, status.ExitStatus(), status.Signaled() && status.Signal() == unix.SIGKILL, string(said)
	}
	judge := func(dir, after string) {
		t.Helper()
		whole(t, dir, after)
		ids, blob, err := play(t, dir)
		if err != nil || ids != want || blob != digestOf(kernel) {
			t.Errorf("%s: once more: %v %s, %v", after, ids, blob, err)
		}
		if n := whole(t, dir, after+", and once more"); n != 2 {
			t.Errorf("%s: %d images of 2", after, n)
		}
	}
	first := &faulty.Tracer{}
	dir, code, _, output := run(first)
	if code != 0 {
		t.Fatalf("without a fault: %d: %s", code, output)
	}
	var err error
	if want, _, err = play(t, dir); err != nil {
		t.Fatal(err)
	}
	judge(dir, "without a fault")
	chunksFirst(t, first.Steps)
	stride := 13
	if os.Getenv("ZOS_FAULTS") == "all" {
		stride = 1
	}
	kills, refusals := 0, 0
	for n := 1; n <= len(first.Steps); n += stride {
		tr := &faulty.Tracer{At: n}
		if dir, code, killed, output := run(tr); tr.Hit {
			if !killed {
				t.Fatalf("step %d: it was not killed: %d: %s", n, code, output)
			}
			kills++
			judge(dir, fmt.Sprintf("killed at step %d, %s", n, tr.Steps[n-1]))
		}
		full := &faulty.Tracer{At: n, Full: true}
		dir, code, _, output := run(full)
		if full.Hit && code != noRoom {
			t.Errorf("full from step %d on: %d: %s", n, code, output)
		}
		if full.Hit {
			refusals++
			judge(dir, fmt.Sprintf("full from step %d on, refused with %q", n, output))
		}
	}
	t.Logf("killed %d times and refused %d times in %d steps: %s", kills, refusals, len(first.Steps), first.Kinds())
	if kills*stride < len(first.Steps)/2 || refusals == 0 {
		t.Errorf("%d kills and %d refusals in %d steps: the test did not test", kills, refusals, len(first.Steps))
	}
}

// chunksFirst makes sure that a manifest gets its name when all that it is of is
// on the disk: else a power cut, unlike a kill, leaves the one without the others.
// And in the end what was written is there, if not under its name.
func chunksFirst(t *testing.T, steps []string) {
	t.Helper()
	const written, named = "written", "named"
	notYet := map[string]string{} // on the disk
	manifests := 0
	for i, step := range steps {
		call, what, _ := strings.Cut(step, " ")
		from, to, _ := strings.Cut(what, " to ")
		switch {
		case call == "syncfs":
			clear(notYet)
		case call == "fsync", call == "unlink":
			delete(notYet, what)
		case strings.HasSuffix(what, " (deleted)"): // work in progress, which nobody finds again
		case call != "rename":
			notYet[what] = written
		default:
			if strings.HasPrefix(to, "manifests/") {
				manifests++
				if len(notYet) > 0 {
					t.Errorf("step %d, %s: a power cut now may leave it without\n%v", i+1, step, notYet)
				}
			}
			if notYet[to] = named; notYet[from] == written {
				notYet[to] = written
			}
			delete(notYet, from)
		}
	}
	for what, state := range notYet {
		if state == written {
			t.Errorf("in the end a power cut may leave %s empty", what)
		}
	}
	if manifests != len(plotImages(t)) {
		t.Errorf("%d manifests in these steps:\n%s", manifests, strings.Join(steps, "\n"))
	}
}

// whole makes sure that everything that has a name in a store is right, and
// that a manifest has all its chunks. It gives the number of images.
func whole(t *testing.T, dir, after string) (images int) {
	t.Helper()
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return 0
	}
	s, err := OpenStore(dir)
	if err != nil {
		t.Fatalf("%s: the store does not open: %v", after, err)
	}
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		kind, name, _ := strings.Cut(strings.TrimPrefix(path, dir+"/"), "/")
		switch kind {
		case "manifests":
			images++
			_, err = s.Verify(t.Context(), "sha256:"+strings.TrimSuffix(name, ".json"), nil)
		case "blobs":
			var got string
			if got, err = hashFile(path, io.Discard); err == nil && got != "sha256:"+name {
				err = fmt.Errorf("it hashes to %s", got)
			}
		case "chunks":
			var b []byte
			id := strings.TrimSuffix(filepath.Base(name), ".zst")
			if b, err = os.ReadFile(path); err == nil {
				if b, err = s.codec.dec.DecodeAll(b, make([]byte, 0, MaxChunk)); err == nil && digestOf(b) != "sha256:"+id {
					err = fmt.Errorf("it hashes to %s", digestOf(b))
				}
			}
		case "by-oci":
			var h Hint
			digest, _, _ := strings.Cut(name, "-")
			if h, err = s.Hint("sha256:"+digest, "linux/amd64"); err == nil {
				_, err = s.Manifest(h.ID)
			}
		case "tmp": // nobody's
		default:
			err = errors.New("what is that?")
		}
		if err != nil {
			t.Errorf("%s: %s: %v", after, path, err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return images
}
