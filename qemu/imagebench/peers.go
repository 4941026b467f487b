// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/zimage"
)

// process is a command that was run: how long, how much of that on a
// processor, and the most memory that it, or one of its children, had.
type process struct {
	took time.Duration
	cpu  time.Duration
	kib  int64
	out  []byte
}

// measured is run, with memory and processor time.
func (b *bench) measured(ctx context.Context, argv ...string) (p process, err error) {
	peak, err := os.CreateTemp(b.dir, "peak-")
	if err != nil {
		return process{}, err
	}
	defer func() { err = errors.Join(err, peak.Close(), os.Remove(peak.Name())) }()
	if p, err = runWith(ctx, peak, append([]string{b.launch, "run"}, argv...)...); err != nil {
		return process{}, err
	}
	text, err := os.ReadFile(peak.Name())
	if err != nil {
		return process{}, err
	}
	var us int64
	_, err = fmt.Sscan(string(text), &p.kib, &us)
	p.cpu = time.Duration(us) * time.Microsecond
	return p, err
}

func run(ctx context.Context, argv ...string) (process, error) { return runWith(ctx, nil, argv...) }

func runWith(ctx context.Context, extra *os.File, argv ...string) (process, error) {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if extra != nil {
		cmd.ExtraFiles = []*os.File{extra}
	}
	start := time.Now()
	err := cmd.Run()
	took := time.Since(start)
	if err != nil {
		return process{}, fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, tail(errs.String()+out.String()))
	}
	return process{took: took, out: out.Bytes()}, nil
}

func tail(s string) string {
	if len(s) > 500 {
		return "…" + s[len(s)-500:]
	}
	return s
}

// inTurn measures ours and theirs in rounds. Each side is a list of commands
// whose times add up. Each begins in an empty work folder, and what others have
// written until then is brought to the disk, so that it is not charged to anybody.
func (b *bench) inTurn(ctx context.Context, r row, ours, theirs [][]string) (row, error) {
	side := func(commands [][]string) (ms, cpu, kib int64, err error) {
		if err := b.fresh(); err != nil {
			return 0, 0, 0, err
		}
		syscall.Sync()
		for _, argv := range commands {
			p, err := b.measured(ctx, argv...)
			if err != nil {
				return 0, 0, 0, err
			}
			ms += p.took.Milliseconds()
			cpu += p.cpu.Milliseconds()
			kib = max(kib, p.kib)
		}
		return ms, cpu, kib, nil
	}
	for range b.rounds {
		ms, cpu, kib, err := side(ours)
		if err != nil {
			return r, err
		}
		r.OursMs, r.OursCPUMs, r.OursKiB = append(r.OursMs, ms), append(r.OursCPUMs, cpu), max(r.OursKiB, kib)
		if ms, cpu, kib, err = side(theirs); err != nil {
			return r, err
		}
		r.TheirsMs, r.TheirsCPUMs, r.TheirsKiB = append(r.TheirsMs, ms), append(r.TheirsCPUMs, cpu), max(r.TheirsKiB, kib)
	}
	r.Ratio = float64(median(r.TheirsMs)) / float64(max(median(r.OursMs), 1))
	r.CPURatio = float64(median(r.TheirsCPUMs)) / float64(max(median(r.OursCPUMs), 1))
	return r, nil
}

// convert measures an OCI layout to an image with its tree. Ours also cuts,
// compresses and stores the chunks, and brings them to the disk, which theirs is
// made to do as well.
func (b *bench) convert(ctx context.Context, m made) error {
	for _, tool := range []string{"umoci", "mkfs.erofs", "veritysetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.cannot("OCI layout to image with hash tree", ">= 1.5, <= 256 MiB", m, "no "+tool)
			return nil
		}
	}
	store, bundle, disk, hashes := b.path("work", "store"), b.path("work", "bundle"), b.path("work", "disk"), b.path("work", "hashes")
	r, err := b.inTurn(ctx, row{What: "OCI layout to image with hash tree", Than: "umoci unpack + mkfs.erofs + veritysetup format + sync -f", Image: m.Name, Goal: ">= 1.5, <= 256 MiB"},
		[][]string{{b.zos, "image", "convert", "oci:" + m.layout, "--store", store}},
		[][]string{
			{"umoci", "unpack", "--image", m.layout + ":latest", bundle},
			{"mkfs.erofs", "-T0", disk, filepath.Join(bundle, "rootfs")},
			{"veritysetup", "format", "--salt=-", disk, hashes},
			{"sync", "-f", b.path("work")},
		})
	if err != nil {
		return err
	}
	r.Holds = r.Ratio >= 1.5 && r.OursKiB <= 256<<10
	b.add(r)
	return nil
}

// fromTar measures the image alone, from a plain tar.
func (b *bench) fromTar(ctx context.Context, m made) error {
	mkfs, err := b.mkfs(ctx)
	if err != nil {
		b.cannot("image alone from a tar", ">= 1.0", m, err.Error())
		return nil
	}
	ours, theirs := b.path("work", "ours"), b.path("work", "theirs")
	r, err := b.inTurn(ctx, row{What: "image alone from a tar", Than: "mkfs.erofs --tar", Image: m.Name, Goal: ">= 1.0"},
		[][]string{{b.launch, "tar", m.tar, ours}}, [][]string{append(mkfs, "--tar=f", theirs, m.tar)})
	if err != nil {
		return err
	}
	r.Holds = r.Ratio >= 1.0
	b.add(r)
	return nil
}

// mkfs finds an mkfs.erofs that reads tar: the machine's, or that of the
// newer Debian, unpacked into a folder of its own.
func (b *bench) mkfs(ctx context.Context) ([]string, error) {
	if p, err := run(ctx, "mkfs.erofs", "--help"); err == nil && bytes.Contains(p.out, []byte("--tar")) {
		return []string{"mkfs.erofs"}, nil
	}
	root := b.path("tools")
	lib := filepath.Join(root, "usr/lib/x86_64-linux-gnu")
	argv := []string{filepath.Join(lib, "ld-linux-x86-64.so.2"), "--library-path", lib, filepath.Join(root, "usr/bin/mkfs.erofs")}
	if _, err := os.Stat(argv[3]); err == nil {
		return argv, nil
	}
	debs, err := fetch(ctx, "build/cache/debian", []string{"erofs-utils"})
	if err != nil {
		return nil, err
	}
	for _, deb := range debs {
		if _, err := run(ctx, "dpkg-deb", "-x", deb, root); err != nil {
			return nil, err
		}
	}
	if _, err := os.Stat(argv[0]); err != nil {
		return nil, fmt.Errorf("mkfs.erofs of the newer Debian: %w", err)
	}
	return argv, nil
}

// change measures what is sent when one file of 1 MiB is another.
func (b *bench) change(ctx context.Context, m made) error {
	if m.Bytes < 500<<20 {
		return nil // the goal is for an image of this size
	}
	work := b.path("work")
	if err := b.fresh(); err != nil {
		return err
	}
	next := filepath.Join(work, "oci")
	if err := os.CopyFS(next, os.DirFS(m.layout)); err != nil {
		return err
	}
	var index struct{ Manifests []struct{ Digest string } }
	var man struct {
		Config struct{ Digest string }
		Layers []struct {
			Digest string
			Size   int64
		}
	}
	var cfg struct {
		RootFS struct {
			DiffIDs []string `json:"diff_ids"`
		} `json:"rootfs"`
	}
	read := func(name string, v any) error {
		text, err := os.ReadFile(filepath.Join(next, name))
		if err != nil {
			return err
		}
		return json.Unmarshal(text, v)
	}
	blob := func(digest string) string { return "blobs/sha256/" + strings.TrimPrefix(digest, "sha256:") }
	if err := read("index.json", &index); err != nil {
		return err
	}
	if err := read(blob(index.Manifests[0].Digest), &man); err != nil {
		return err
	}
	if err := read(blob(man.Config.Digest), &cfg); err != nil {
		return err
	}
	last, err := b.changing(next, len(man.Layers), 2, nil)
	if err != nil {
		return err
	}
	layers := []layer{}
	for i, l := range man.Layers[:len(man.Layers)-1] {
		layers = append(layers, known(l.Digest, cfg.RootFS.DiffIDs[i], l.Size))
	}
	if err := writeLayout(next, append(layers, last)); err != nil {
		return err
	}
	ids, sent, err := b.publish(ctx, m.layout, next)
	if err != nil {
		return err
	}
	r := row{What: "bytes sent for a changed file of 1 MiB", Than: "the layers of the image", Image: m.Name, Ours: sent[1], Theirs: m.Wire, Goal: "<= 0.01"}
	r.Ratio = float64(r.Ours) / float64(r.Theirs)
	r.Holds = r.Ratio <= 0.01
	b.add(r)
	received, err := pulls(ctx, b.path("work", "mirror"), work, ids)
	if err != nil {
		return err
	}
	r = row{What: "bytes received for it by a node with the old image, with the manifest", Than: "the layers of the image", Image: m.Name, Ours: received, Theirs: m.Wire, Goal: "<= 0.01"}
	r.Ratio = float64(r.Ours) / float64(r.Theirs)
	r.Holds = r.Ratio <= 0.01
	b.add(r)
	return b.fresh()
}

// pulls has a node's store fetch images from a mirror, one after the other, and
// gives how many bytes of bodies the mirror sent for the last.
func pulls(ctx context.Context, mirror, work string, ids []string) (received int64, err error) {
	from, err := zimage.OpenStore(mirror)
	if err != nil {
		return 0, err
	}
	var sent atomic.Int64
	next := zimage.Handler(from)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { next.ServeHTTP(counting{w, &sent}, r) }))
	defer srv.Close()
	const plenty = 1 << 20
	node, err := content.Open(content.Config{Dir: filepath.Join(work, "node"), Fetch: &zimage.Fetcher{Mirrors: []string{srv.URL}}, Clock: clock.System{}, Log: slog.New(slog.DiscardHandler),
		Space: func(string) (content.Space, error) { return content.Space{FreeMiB: plenty, QuotaMiB: plenty}, nil }})
	if err != nil {
		return 0, err
	}
	for _, id := range ids {
		sent.Store(0)
		m, err := node.Manifest(ctx, id)
		if err != nil {
			return 0, err
		}
		if _, err := node.Image(ctx, m, id); err != nil {
			return 0, err
		}
	}
	return sent.Load(), nil
}

// counting counts what is sent.
type counting struct {
	http.ResponseWriter
	n *atomic.Int64
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.ResponseWriter.Write(b)
	c.n.Add(int64(n))
	return n, err
}
