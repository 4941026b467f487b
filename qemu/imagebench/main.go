// SPDX-License-Identifier: Apache-2.0

// Command imagebench measures what zos makes of images against the tools that
// people use for it today, in one run on one machine: `make bench BENCH=image`.
//
// The images are assembled from Debian's packages, with layers as other
// builders make them (gzip). Each row is measured in rounds, ours and theirs
// in turn, as whole processes, so that a ratio means something on a machine
// whose speed drifts. Nobody is given a warm-up that the other does not get.
// Reads are measured in a guest, which takes the ways to a disk in turn.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/imaged/serve"
)

// results is build/bench-image.json.
type results struct {
	At      string   `json:"at"`
	Machine string   `json:"machine"`
	Images  []made   `json:"images"`
	Rows    []row    `json:"rows"`
	Growth  []growth `json:"growth"`
	Notes   []string `json:"notes"` // what was not measured, and why; how the rest was
	Minutes int      `json:"minutes"`
}

// row is one thing of ours against what it is compared with, for one image.
type row struct {
	What     string  `json:"what"`
	Than     string  `json:"than"`
	Image    string  `json:"image"`
	OursMs   []int64 `json:"oursMs,omitempty"`
	TheirsMs []int64 `json:"theirsMs,omitempty"`
	// Time on a processor says more than time on the clock where the machine
	// has other work.
	OursCPUMs   []int64 `json:"oursCpuMs,omitempty"`
	TheirsCPUMs []int64 `json:"theirsCpuMs,omitempty"`
	OursKiB     int64   `json:"oursKiB,omitempty"` // peak resident, the most of all rounds
	TheirsKiB   int64   `json:"theirsKiB,omitempty"`
	Ours        int64   `json:"oursBytes,omitempty"`
	Theirs      int64   `json:"theirsBytes,omitempty"`
	// Names were compared, and of these Differ says what is not the same.
	Names  int      `json:"names,omitempty"`
	Differ []string `json:"differ,omitempty"`
	// Ratio is how many times as fast ours is, by the medians, or for bytes
	// ours by theirs.
	Ratio    float64 `json:"ratio"`
	CPURatio float64 `json:"cpuRatio,omitempty"` // the same of time on a processor
	Goal     string  `json:"goal"`
	Holds    bool    `json:"holds"`
	Load     string  `json:"load"` // the machine's load average when it had been measured
}

type bench struct {
	zos, self, dir string
	launch         string // the program that starts what is measured
	cache          string // of packages
	rounds         int
	ahead          int  // KiB that a guest's kernel reads ahead
	spent          int  // work folders that were put aside
	read           bool // reads were measured
	res            results
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if len(os.Args) == 2 && os.Args[1] == serverTask {
		os.Exit(serve.Main())
	}
	if len(os.Args) > 4 && os.Args[1] == chrootTask {
		if err := inRoot(os.Args[2], os.Args[3], os.Args[4:]); err != nil {
			fmt.Fprintln(os.Stderr, "imagebench:", err)
			os.Exit(1)
		}
		return
	}
	out := flag.String("o", "build/bench-image.json", "where to write the results")
	dir := flag.String("dir", "build/bench-image", "folder for images and work")
	cache := flag.String("cache", "build/cache/debian", "folder for packages")
	zos := flag.String("zos", "build/bin/zos", "the program to measure")
	launch := flag.String("launch", "build/bin/launch", "the program that starts what is measured")
	rounds := flag.Int("rounds", 3, "how often each pair is measured")
	only := flag.String("images", "", "names of images, with commas between; all without it")
	rows := flag.String("rows", "convert,tar,content,change,cold,reads,sharing,growth", "what is measured")
	largest := flag.Int64("growth", 4<<30, "bytes of the largest image of the growth series")
	ahead := flag.Int("readahead", guestReadAhead, "KiB that a kernel reads ahead of our disk in a cold start")
	flag.Parse()
	self, err := os.Executable()
	work, werr := filepath.Abs(*dir)
	if err = errors.Join(err, werr); err == nil {
		b := &bench{zos: *zos, launch: *launch, self: self, dir: work, cache: *cache, rounds: *rounds, ahead: *ahead}
		err = b.run(ctx, *only, strings.Split(*rows, ","), *largest, *out)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imagebench:", err)
		os.Exit(1)
	}
}

func (b *bench) run(ctx context.Context, only string, rows []string, largest int64, out string) (err error) {
	begin := time.Now()
	defer func() { err = errors.Join(err, clearAll(b.path("work"), b.path("spent"))) }()
	b.res.At, b.res.Machine = time.Now().UTC().Format(time.RFC3339), fmt.Sprintf("%d processors, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	if err := os.MkdirAll(b.dir, 0o755); err != nil {
		return fmt.Errorf("work folder: %w", err)
	}
	for _, r := range recipes {
		if only != "" && !slices.Contains(strings.Split(only, ","), r.name) {
			continue
		}
		fmt.Printf("== %s: packages\n", r.name)
		m, err := b.assemble(ctx, b.cache, r)
		if err != nil {
			return fmt.Errorf("image %s: %w", r.name, err)
		}
		b.res.Images = append(b.res.Images, m)
		fmt.Printf("   %d packages, %d files, %d MiB unpacked\n", m.Packages, m.Files, m.Bytes>>20)
		for _, measure := range []struct {
			name string
			do   func(context.Context, made) error
		}{{"convert", b.convert}, {"tar", b.fromTar}, {"content", b.content}, {"change", b.change}, {"cold", b.cold}, {"reads", b.reads}} {
			if !slices.Contains(rows, measure.name) {
				b.note(measure.name + ": left out by -rows")
				continue
			}
			if err := measure.do(ctx, m); err != nil {
				return fmt.Errorf("image %s: %w", r.name, err)
			}
			if err := b.write(out); err != nil {
				return err
			}
		}
	}
	if !slices.Contains(rows, "sharing") {
		b.note("sharing: left out by -rows")
	} else if err := b.sharing(ctx); err != nil {
		return err
	}
	if !slices.Contains(rows, "growth") {
		b.note("growth: left out by -rows")
	} else if err := b.grow(ctx, largest); err != nil {
		return err
	}
	b.res.Minutes = int(time.Since(begin).Round(time.Minute).Minutes())
	fmt.Println()
	return errors.Join(b.res.table(os.Stdout), b.write(out))
}

func (b *bench) write(out string) error {
	text, err := json.MarshalIndent(b.res, "", "  ")
	if err != nil {
		return fmt.Errorf("results: %w", err)
	}
	if err := os.WriteFile(out, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("results: %w", err)
	}
	return nil
}

// note says once what was not measured.
func (b *bench) note(text string) {
	if !slices.Contains(b.res.Notes, text) {
		b.res.Notes = append(b.res.Notes, text)
		fmt.Println("   SKIP " + text)
	}
}

// tell says once how something was measured.
func (b *bench) tell(text string) {
	if !slices.Contains(b.res.Notes, text) {
		b.res.Notes = append(b.res.Notes, text)
		fmt.Println("   " + text)
	}
}

func (b *bench) add(r row) {
	r.Load = load()
	b.res.Rows = append(b.res.Rows, r)
	if r.Names > 0 {
		fmt.Printf("   %s: %d of %d names differ (goal %s)\n", r.What, len(r.Differ), r.Names, r.Goal)
		for _, d := range r.Differ[:min(len(r.Differ), 10)] {
			fmt.Println("   " + d)
		}
		return
	}
	if len(r.TheirsMs) == 0 && r.Ours == 0 {
		fmt.Printf("   %s: %v ms (%s)\n", r.What, r.OursMs, r.Goal)
		return
	}
	if r.Ours > 0 {
		fmt.Printf("   %s: %d bytes against %d: %.4f (goal %s)\n", r.What, r.Ours, r.Theirs, r.Ratio, r.Goal)
		return
	}
	if len(r.OursCPUMs) == 0 {
		fmt.Printf("   %s: %v ms against %v ms: %.2f times as fast (goal %s)\n", r.What, r.OursMs, r.TheirsMs, r.Ratio, r.Goal)
		return
	}
	fmt.Printf("   %s: %v ms against %v ms: %.2f times as fast (goal %s), by processor time %.2f; %d MiB against %d MiB\n", r.What, r.OursMs, r.TheirsMs, r.Ratio, r.Goal, r.CPURatio, r.OursKiB>>10, r.TheirsKiB>>10)
}

func (b *bench) path(parts ...string) string {
	return filepath.Join(append([]string{b.dir}, parts...)...)
}

func median(v []int64) int64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// roomForSpent is how much room the disk must have for what is put aside.
const roomForSpent = 8 << 30

// fresh makes an empty work folder. What was in the last one is put aside until
// the end, if there is room: ext4 without a journal does not use the inodes of
// files again that were deleted in the last minutes, and looks at each such inode
// for each new file. Who comes after somebody that left many files would pay for
// their removal.
func (b *bench) fresh() error {
	work, spent := b.path("work"), b.path("spent")
	var fs unix.Statfs_t
	if err := unix.Statfs(b.dir, &fs); err != nil {
		return fmt.Errorf("room for work: %w", err)
	}
	if int64(fs.Bavail)*fs.Bsize < roomForSpent {
		if err := clearAll(spent, work); err != nil {
			return err
		}
	}
	if err := os.MkdirAll(spent, 0o755); err != nil {
		return err
	}
	b.spent++
	if err := os.Rename(work, filepath.Join(spent, fmt.Sprint(b.spent))); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	return os.MkdirAll(work, 0o755)
}

// clearAll removes what a round left.
func clearAll(paths ...string) error {
	var err error
	for _, p := range paths {
		err = errors.Join(err, os.RemoveAll(p))
	}
	return err
}
