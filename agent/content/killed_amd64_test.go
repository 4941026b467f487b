// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/faulty"
)

// plot is what the store goes through while faults hit it.
type plot struct {
	Dir  string   // the store is below it, and what was recorded
	URL  string   // of the mirror
	IDs  []string // image 0 runs, image 2 is there and altered, and has the most of image 1
	Blob string
}

const (
	plotEnv = "ZOS_STORE_PLOT"
	refused = 3 // exit code: no room
)

func (p plot) config() Config {
	return Config{Dir: filepath.Join(p.Dir, "store"), Fetch: &zimage.Fetcher{Mirrors: []string{p.URL}}, Log: slog.New(slog.DiscardHandler), Clock: &leap{now: time.Unix(1e9, 0)},
		Space: func(string) (Space, error) { return Space{FreeMiB: 1000, QuotaMiB: 5}, nil }, Found: p.found}
}

// found records as the agent does: on disk when it returns.
func (p plot) found(f Finding) error {
	out, err := os.OpenFile(filepath.Join(p.Dir, "found"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(out, f)
	return errors.Join(err, out.Sync(), out.Close())
}

// play is every deed of the store, once.
func (p plot) play(ctx context.Context) error {
	s, err := Open(p.config())
	if err != nil {
		return err
	}
	image := func(i int) error {
		m, err := s.Manifest(ctx, p.IDs[i])
		if err == nil {
			_, err = s.Image(ctx, m, p.IDs[i])
		}
		return err
	}
	for _, do := range []func() error{
		func() error { return image(0) },
		func() error { return s.Pin(8, s.ImagePath(p.IDs[1]), s.BlobPath(p.Blob)) },
		func() error { return image(1) }, // what image 2 has comes from there, until that is found wrong
		func() error { _, err := s.Blob(ctx, p.Blob); return err },
		func() error { return image(2) }, // it was recorded and quarantined; what image 1 has comes from there
		func() error { return s.Unpin(8) },
		func() error { return s.Pin(9, s.ImagePath(p.IDs[3])) },
		func() error { return image(3) }, // others must go
		func() error { return s.ScrubOnce(ctx) },
		func() error { return s.Retain(7) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// TestPlot is not a test but the program that TestKilledAtEveryStep and
// TestFullAtEveryStep run.
func TestPlot(t *testing.T) {
	raw := os.Getenv(plotEnv)
	if raw == "" {
		return
	}
	var p plot
	err := json.Unmarshal([]byte(raw), &p)
	if err == nil {
		err = p.play(context.Background())
	}
	switch {
	case errors.Is(err, zimage.ErrNoRoom), errors.Is(err, unix.ENOSPC):
		fmt.Fprintln(os.Stderr, err)
		os.Exit(refused)
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stage has what every run of the plot begins with.
type stage struct {
	plot
	template string
	sums     map[string][32]byte // of the right files, by name
}

func newStage(t *testing.T) *stage {
	t.Helper()
	o := newOrigin(t, 100<<10, 1100<<10, 1100<<10, 1300<<10)
	g := &stage{plot: plot{URL: o.url, IDs: o.ids, Blob: o.blob}, template: t.TempDir(), sums: map[string][32]byte{}}
	// All that is right, from the mirror.
	s, err := Open(o.config(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	for i := range o.ids {
		if _, err := o.image(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
		g.sums[filepath.Base(s.ImagePath(o.ids[i]))] = sum(t, s.ImagePath(o.ids[i]))
	}
	if _, err := s.Blob(t.Context(), o.blob); err != nil {
		t.Fatal(err)
	}
	g.sums[filepath.Base(s.BlobPath(o.blob))] = sum(t, s.BlobPath(o.blob))

	p := plot{Dir: g.template, URL: o.url}
	if s, err = Open(p.config()); err != nil {
		t.Fatal(err)
	}
	if err := s.Pin(7, s.ImagePath(o.ids[0])); err != nil {
		t.Fatal(err)
	}
	for _, i := range []int{0, 2} {
		if _, err := o.image(t.Context(), s, i); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(os.Chmod(s.ImagePath(o.ids[2]), 0o600), flip(s.ImagePath(o.ids[2]), 600<<10)); err != nil {
		t.Fatal(err)
	}
	return g
}

func sum(t *testing.T, path string) [32]byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return sha256.Sum256(b)
}

// act plays it once, with a fault.
func (g *stage) act(t *testing.T, tr *faulty.Tracer) (code int, killed bool, output string) {
	t.Helper()
	if g.Dir = filepath.Join(t.TempDir(), "root"); os.CopyFS(g.Dir, os.DirFS(g.template)) != nil {
		t.Fatal("copy of the stage")
	}
	raw, err := json.Marshal(g.plot)
	if err != nil {
		t.Fatal(err)
	}
	out, err := os.Create(filepath.Join(filepath.Dir(g.Dir), "output"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestPlot$")
	cmd.Env = append(os.Environ(), plotEnv+"="+string(raw), "GOMAXPROCS=1")
	cmd.Stdout, cmd.Stderr = out, out
	tr.Dir = g.Dir
	status, err := tr.Run(cmd)
	if err != nil {
		t.Fatalf("trace: %v", err)
	}
	said, err := os.ReadFile(out.Name())
	if err != nil {
		t.Fatal(err)
	}
	return status.ExitStatus(), status.Signaled() && status.Signal() == unix.SIGKILL, string(said)
}

// judge looks at what is left, as the next agent finds it.
func (g *stage) judge(t *testing.T, after string) {
	t.Helper()
	c := g.config()
	told := 0
	c.Found = func(Finding) error { told++; return nil }
	c.Fetch = &zimage.Fetcher{}
	s, err := Open(c)
	if err != nil {
		t.Fatalf("%s: the store does not open: %v", after, err)
	}
	if len(s.owners(s.ImagePath(g.IDs[0]))) != 1 {
		t.Errorf("%s: the pin is lost", after)
	}
	wrong, err := filepath.Glob(filepath.Join(s.Dir, quarantineDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(filepath.Join(g.Dir, "found")); len(wrong) > 0 && err != nil {
		t.Errorf("%s: a file is in quarantine that was not recorded: %v", after, err)
	}
	// What the store gives out, it gives out right.
	for i, id := range g.IDs {
		m, err := s.Manifest(t.Context(), id)
		if err == nil {
			_, err = s.Image(t.Context(), m, id)
		}
		if path := s.ImagePath(id); err == nil && sum(t, path) != g.sums[filepath.Base(path)] {
			t.Errorf("%s: image %d is served and wrong", after, i)
		}
		if i == 0 && err != nil {
			t.Errorf("%s: what runs is lost: %v", after, err)
		}
	}
	if _, err := s.Blob(t.Context(), g.Blob); err == nil && sum(t, s.BlobPath(g.Blob)) != g.sums[filepath.Base(s.BlobPath(g.Blob))] {
		t.Errorf("%s: the blob is served and wrong", after)
	}
	if told > 1 {
		t.Errorf("%s: %d wrong files have right names, one was made wrong", after, told)
	}
	items, err := s.items()
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range items {
		if err := s.evict(i); err != nil {
			t.Fatal(err)
		}
	}
	if !exists(t, s.ImagePath(g.IDs[0])) {
		t.Errorf("%s: what runs was evicted", after)
	}
	// And it goes on.
	if err := g.play(t.Context()); err != nil {
		t.Errorf("%s: once more: %v", after, err)
	}
}

// stride is how many steps are left out between two, but for ZOS_FAULTS=all.
func stride() int {
	if os.Getenv("ZOS_FAULTS") == "all" {
		return 1
	}
	return 13
}

// TestKilledAtEveryStep kills an agent before each of the calls with which it
// changes a file, by a tracer that stands between it and the kernel.
func TestKilledAtEveryStep(t *testing.T) {
	g := newStage(t)
	whole := &faulty.Tracer{}
	if code, _, output := g.act(t, whole); code != 0 {
		t.Fatalf("without a fault: %d: %s", code, output)
	}
	g.judge(t, "without a fault")
	var kills int
	for n := 1; ; n += stride() {
		tr := &faulty.Tracer{At: n}
		code, killed, output := g.act(t, tr)
		if !tr.Hit {
			if code != 0 {
				t.Errorf("step %d, which it does not reach: %d: %s", n, code, output)
			}
			break
		}
		if !killed {
			t.Fatalf("step %d: it was not killed: %d: %s", n, code, output)
		}
		kills++
		g.judge(t, fmt.Sprintf("killed at step %d, %s", n, tr.Steps[n-1]))
	}
	t.Logf("killed %d times in %d steps: %s", kills, len(whole.Steps), whole.Kinds())
	if kills*stride() < len(whole.Steps)/2 {
		t.Errorf("only %d of %d steps were hit", kills, len(whole.Steps))
	}
}

// TestFullAtEveryStep lets the disk become full before each of them, and stay
// so: a clear refusal, and nothing is lost.
func TestFullAtEveryStep(t *testing.T) {
	g := newStage(t)
	var refusals int
	for n := 1; ; n += stride() {
		tr := &faulty.Tracer{At: n, Full: true}
		code, _, output := g.act(t, tr)
		if !tr.Hit {
			break
		}
		if code == refused {
			refusals++
		} else if code != 0 {
			t.Errorf("full from step %d on: %d: %s", n, code, output)
		}
		g.judge(t, fmt.Sprintf("full from step %d on, refused with %q", n, output))
	}
	t.Logf("%d clear refusals", refusals)
	if refusals == 0 {
		t.Error("nothing was refused: the test did not test")
	}
}
