// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu"
)

// rounds is how often each pair is measured, one after the other in the same
// run, so that a ratio means something on a machine whose speed drifts.
const rounds = 3

// pair is one thing of ours against what it is compared with.
type pair struct {
	What   string  `json:"what"`
	Than   string  `json:"than"`
	OursMs []int64 `json:"oursMs"`
	BaseMs []int64 `json:"baseMs"`
	Ratio  float64 `json:"ratio"` // of the medians
	Goal   float64 `json:"goal"`
}

// results is build/bench.json.
type results struct {
	At          string           `json:"at"`
	Machine     string           `json:"machine"`
	Accelerator string           `json:"accelerator"`
	Hypervisor  string           `json:"hypervisor"`
	Boot        pair             `json:"boot"`
	Start       pair             `json:"start"`
	Guest       pair             `json:"startToGuest"`  // the same starts against one by hand that ends at the guest's PID 1
	PageMs      []int64          `json:"startToPageMs"` // and until the first page came through the gateway
	Sizes       map[string]int64 `json:"sizesBytes"`
	Memory      map[string]int64 `json:"memoryKiB"`
	Fetching    []phaseTime      `json:"phasesFetching"` // of the first start, which brings kernel, initramfs and image
	Phases      []phaseTime      `json:"phases"`         // of the last start, image local
}

type phaseTime struct {
	Phase      string `json:"phase"`
	DurationMs int64  `json:"durationMs"`
	Bytes      int64  `json:"bytes"`
}

// bench has what the measurements share.
type bench struct {
	*chain
	accel qemu.Accel
	res   results
	out   string // folder of the test image
	m     *qemu.Machine
	port  int
}

func (p *pair) finish() {
	p.Ratio = float64(median(p.OursMs)) / float64(median(p.BaseMs))
}

func median(v []int64) int64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// benchSteps follow the steps that make keys, ledger, mirror and images.
func (b *bench) steps() []step {
	return []step{
		{"boots: the node, and the same kernel with an idle init", b.boots},
		{"a node that stays, memory before the first guest", b.stay},
		{"starts: claim to first byte, and the hypervisor by hand", b.starts},
		{"write " + b.benchFile, b.write},
	}
}

// image builds the image that can be measured from within.
func (b *bench) image(ctx context.Context) ([]string, error) {
	b.out = b.path("images", "bench")
	seed, err := b.makeSeed(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := b.command(ctx, b.zos, "node", "build", "--faults", "--board", b.board, "--root", b.root, "--seed", seed, "-o", b.out); err != nil {
		return nil, err
	}
	return nil, b.loadBuild(b.out)
}

var (
	idleSaid  = regexp.MustCompile(`idle init: uptimeMs=(\d+)`)
	nodeSaid  = regexp.MustCompile(`msg="following the ledger".* uptime=([0-9a-z.]+)`)
	bootClear = 30 * time.Second
)

// boots measures pairs of boots: kernel start to agent following the ledger
// against kernel start to an init that only exits.
func (b *bench) boots(ctx context.Context) ([]string, error) {
	b.accel = qemu.Probe(ctx, qemu.Binary)
	b.res.Boot = pair{What: "kernel start to agent following the ledger", Than: "the same kernel to an init that only exits", Goal: 2.0}
	idle, err := b.idleInitramfs(ctx)
	if err != nil {
		return nil, err
	}
	for range rounds {
		base, err := b.bootOnce(ctx, idle, idleSaid)
		if err != nil {
			return nil, err
		}
		ours, err := b.bootOnce(ctx, filepath.Join(b.out, "seeded"), nodeSaid)
		if err != nil {
			return nil, err
		}
		b.res.Boot.BaseMs, b.res.Boot.OursMs = append(b.res.Boot.BaseMs, base), append(b.res.Boot.OursMs, ours)
	}
	b.res.Boot.finish()
	return []string{fmt.Sprintf("%v ms against %v ms: %.2f times (goal %.1f)", b.res.Boot.OursMs, b.res.Boot.BaseMs, b.res.Boot.Ratio, b.res.Boot.Goal)}, nil
}

// idleInitramfs makes the initramfs of the comparison, and the node's with its
// seed.
func (b *bench) idleInitramfs(ctx context.Context) (string, error) {
	program, err := image.Program{Package: "./qemu/idle"}.Build(ctx, ".")
	if err != nil {
		return "", err
	}
	t := image.NewTree()
	t.File("init", 0o755, program)
	cpio, err := t.CPIO()
	if err != nil {
		return "", err
	}
	name := filepath.Join(b.out, "idle")
	if err := os.WriteFile(name, cpio, 0o644); err != nil {
		return "", fmt.Errorf("initramfs of the comparison: %w", err)
	}
	base, err := os.ReadFile(filepath.Join(b.out, "initramfs"))
	if err != nil {
		return "", fmt.Errorf("the node's initramfs: %w", err)
	}
	seed, err := os.ReadFile(filepath.Join(b.run1, "seed.json"))
	if err != nil {
		return "", fmt.Errorf("seed: %w", err)
	}
	patch := image.Patch()
	patch.File("etc/zos/seed.json", 0o600, seed)
	both, err := image.Appended(base, patch)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(filepath.Join(b.out, "seeded"), both, 0o600); err != nil {
		return "", fmt.Errorf("the node's initramfs: %w", err)
	}
	return name, nil
}

func (b *bench) options(initrd string) qemu.Options {
	return qemu.Options{
		Accel: b.accel, MemoryMiB: 2048, Kernel: filepath.Join(b.out, "vmlinuz"), Initrd: initrd, Cmdline: b.build.Cmdline,
		Log: filepath.Join(b.run1, "bench-console.log"), Faults: true,
	}
}

// bootOnce boots and returns the uptime in ms that a line tells.
func (b *bench) bootOnce(ctx context.Context, initrd string, said *regexp.Regexp) (ms int64, err error) {
	ctx, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	m, err := qemu.Start(b.options(initrd))
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	_, groups, _, err := m.Console.Expect(ctx, 0, said)
	if err != nil {
		return 0, err
	}
	if ms, err := strconv.ParseInt(groups[1], 10, 64); err == nil {
		return ms, nil
	}
	d, err := time.ParseDuration(groups[1])
	if err != nil {
		return 0, fmt.Errorf("uptime %q: %w", groups[1], err)
	}
	return d.Milliseconds(), nil
}

// inside is what the fault program tells.
type inside struct {
	Processes []struct {
		Name   string   `json:"name"`
		RSSKiB int64    `json:"rssKiB"`
		Args   []string `json:"args"`
	} `json:"processes"`
	MemTotalKiB     int64 `json:"memTotalKiB"`
	MemAvailableKiB int64 `json:"memAvailableKiB"`
}

// stay boots the node whose starts are measured.
func (b *bench) stay(ctx context.Context) ([]string, error) {
	o := b.options(filepath.Join(b.out, "seeded"))
	for tries := 0; b.m == nil; tries++ {
		var err error
		if b.port, err = freePort(gatewayPort); err != nil {
			return nil, err
		}
		o.Forward = map[int]int{b.port: gatewayPort}
		if b.m, err = qemu.Start(o); err != nil && (tries == portTries || !errors.Is(err, qemu.ErrPortTaken)) {
			return nil, err
		}
	}
	limited, cancel := context.WithTimeout(ctx, bootLimit)
	defer cancel()
	if _, _, _, err := b.m.Console.Expect(limited, 0, regexp.MustCompile(`msg=capacity`)); err != nil {
		return nil, err
	}
	select { // what the boot needed is given back
	case <-time.After(bootClear):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	var in inside
	if err := b.m.Fault(ctx, map[string]any{"do": "stat"}, &in); err != nil {
		return nil, err
	}
	b.res.Memory = map[string]int64{"usedBeforeFirstGuest": in.MemTotalKiB - in.MemAvailableKiB}
	for _, p := range in.Processes {
		if p.Name == "init" || p.Name == "agent" {
			b.res.Memory[p.Name+"Resident"] = p.RSSKiB
		}
	}
	return []string{fmt.Sprintf("KiB: %v", b.res.Memory)}, nil
}

// end stops the node of the measurements.
func (b *bench) end() error {
	if b.m == nil {
		return nil
	}
	return b.m.Close()
}

func (b *bench) write(context.Context) ([]string, error) {
	b.res.At, b.res.Machine = time.Now().UTC().Format(time.RFC3339), fmt.Sprintf("%d processors, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	b.res.Accelerator = b.accel.Name + ": " + b.accel.Why
	b.res.Hypervisor = strings.Join([]string{b.build.Hypervisor.Name, b.build.Hypervisor.Version, b.build.Hypervisor.Source}, " ")
	b.res.Sizes = map[string]int64{}
	for name, f := range b.build.Files {
		b.res.Sizes[name] = f.Size
	}
	for name, f := range b.build.Programs {
		b.res.Sizes["program "+filepath.Base(name)] = f.Size
	}
	out, err := json.MarshalIndent(b.res, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.benchFile, append(out, '\n'), 0o644); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return []string{string(out)}, nil
}

// askedAtOnce bounds the questions that wait for an answer: a slow machine
// would do nothing but take connections.
const askedAtOnce = 4

// firstByte waits until a page answers. It asks anew every 100 ms (more
// would keep the guest from starting what is asked for) without
// waiting for the last question: one that came before there was anybody to
// take it answers seconds late, or never.
func firstByte(ctx context.Context, url string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	client := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	answers := make(chan error)
	every := time.NewTicker(100 * time.Millisecond)
	defer every.Stop()
	last, open := errors.New("nothing was tried"), 0
	for {
		select {
		case <-every.C:
			if open == askedAtOnce {
				continue
			}
			open++
			go func() {
				err := ask(ctx, &client, url)
				select {
				case answers <- err:
				case <-ctx.Done():
				}
			}()
		case last = <-answers:
			if open--; last == nil {
				return nil
			}
		case <-ctx.Done():
			return fmt.Errorf("no page at %s: %w (%v)", url, ctx.Err(), last)
		}
	}
}

// ask gets a page once.
func ask(ctx context.Context, client *http.Client, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	r, err := client.Do(req)
	if err != nil {
		return err
	}
	if err := r.Body.Close(); err != nil {
		return err
	}
	if r.StatusCode != http.StatusOK {
		return errors.New(r.Status)
	}
	return nil
}
