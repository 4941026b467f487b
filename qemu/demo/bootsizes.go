// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
)

// weighed is what the UKI of one board holds.
type weighed struct {
	Board       string        `json:"board"`
	UKI         int64         `json:"ukiBytes"`
	Init        int64         `json:"initBytes"`
	Executables []string      `json:"executables"`
	Shares      []image.Share `json:"shares"`
	Hypervisor  string        `json:"hypervisor"`
	GoalMB      float64       `json:"goalMB"`
	Holds       bool          `json:"holds"` // UKI, init and number of executables; not known, so false, without a hypervisor
}

// memory is what a node of 2 GiB has used before its first guest.
type memory struct {
	UsedKiB int64            `json:"usedKiB"` // MemTotal less MemAvailable, as the kernel has it
	Parts   map[string]int64 `json:"partsKiB"`
	GoalKiB int64            `json:"goalKiB"`
	Holds   bool             `json:"holds"`
}

// Goals, in 10^6 bytes as the sizes of files are told.
const (
	goalUKI, goalPC = 40.0, 90.0
	goalInit        = 4e6
	goalPrograms    = 6
	goalMemoryKiB   = 150 * 1024
)

// sizes builds every board and weighs its UKI.
func (b *bootBench) sizes(ctx context.Context) ([]string, error) {
	names, err := boards.Names()
	if err != nil {
		return nil, err
	}
	var notes []string
	for _, name := range names {
		r, err := b.weigh(ctx, name)
		if err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			b.boot.Notes = append(b.boot.Notes, "SKIP board "+name+": "+err.Error())
			notes = append(notes, "SKIP "+name+": "+err.Error())
			continue
		}
		b.boot.Boards = append(b.boot.Boards, r)
		notes = append(notes, fmt.Sprintf("%-12s UKI %.1f MB", name, float64(r.UKI)/1e6))
	}
	return notes, nil
}

func (b *bootBench) weigh(ctx context.Context, name string) (r weighed, err error) {
	board, err := boards.Load(name)
	if err != nil {
		return r, err
	}
	root, err := os.ReadFile(b.chain.root)
	if err != nil {
		return r, err
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	parts, err := kernel.Open(kernel.Options{Cache: b.path("cache", "debian"), Lock: "kernel/debian.lock", WorkLock: b.path("debian.lock"), Arch: board.Arch, Log: log})
	if err != nil {
		return r, err
	}
	r = weighed{Board: name, GoalMB: goalUKI}
	if strings.HasPrefix(name, "pc-") {
		r.GoalMB = goalPC
	}
	out := b.path("images", "sizes", name)
	defer func() { err = errors.Join(err, os.RemoveAll(out)) }()
	res, err := image.Build(ctx, image.Request{Board: board, Source: ".", Parts: parts, Root: root, Out: out, Guest: filepath.Join(out, "guest"), Log: log,
		// A board whose hypervisor cannot be had here is weighed without one.
		Hypervisor: func(ctx context.Context, s *kernel.Source) (kernel.Hypervisor, error) {
			h, err := image.FindHypervisor(ctx, s)
			if err != nil && board.Arch != "amd64" {
				r.Hypervisor = "NONE, so the UKI is smaller than a real one: " + err.Error()
				return kernel.Hypervisor{Name: "none"}, nil
			}
			r.Hypervisor = h.Name + " " + h.Version + " " + h.Source
			return h, err
		}})
	if err != nil {
		return r, err
	}
	r.UKI, r.Init = res.Files[image.MediumUKI].Size, res.Programs["init"].Size
	uki, err := os.ReadFile(filepath.Join(out, image.MediumUKI))
	if err != nil {
		return r, err
	}
	if r.Shares, r.Executables, err = image.Weigh(uki); err != nil {
		return r, err
	}
	r.Holds = !strings.HasPrefix(r.Hypervisor, "NONE") && float64(r.UKI) <= r.GoalMB*1e6 && r.Init <= goalInit && len(r.Executables) <= goalPrograms
	return r, nil
}

// memory boots a test image, which can be asked, and says what its memory is.
func (b *bootBench) memory(ctx context.Context) ([]string, error) {
	if _, err := b.image(ctx); err != nil {
		return nil, err
	}
	if _, err := b.idleInitramfs(ctx); err != nil { // and the seeded one
		return nil, err
	}
	notes, err := b.stay(ctx)
	if err != nil {
		return notes, err
	}
	var info struct {
		Text string `json:"text"`
	}
	if err := b.m.Fault(ctx, map[string]any{"do": "read", "file": "/proc/meminfo"}, &info); err != nil {
		return nil, err
	}
	kib := map[string]int64{}
	for _, m := range regexp.MustCompile(`(?m)^(\S+): +(\d+) kB$`).FindAllStringSubmatch(info.Text, -1) {
		if kib[m[1]], err = strconv.ParseInt(m[2], 10, 64); err != nil {
			return nil, err
		}
	}
	used := kib["MemTotal"] - kib["MemAvailable"]
	p := map[string]int64{
		"files in memory (programs, drivers, test program)": kib["Shmem"], "programs' own": kib["AnonPages"], "kernel objects": kib["SUnreclaim"],
		"kernel stacks, page tables": kib["KernelStack"] + kib["PageTables"], "drivers and other mapped areas": kib["VmallocUsed"], "per processor": kib["Percpu"],
		"held back by the kernel": kib["MemFree"] + kib["Active(file)"] + kib["Inactive(file)"] + kib["KReclaimable"] - kib["MemAvailable"],
	}
	rest := used
	for _, v := range p {
		rest -= v
	}
	p["not told by the kernel"] = rest
	b.boot.Memory = memory{UsedKiB: used, Parts: p, GoalKiB: goalMemoryKiB, Holds: used <= goalMemoryKiB}
	err = b.m.Close()
	b.m = nil
	return append(notes, fmt.Sprintf("%d MiB used", used>>10)), err
}

// table is what people read.
func (b *bootBench) table() []string {
	out := []string{"", fmt.Sprintf("BOOT (ms from kernel start, median of %d; in brackets what the emulator took on a processor, firmware included)", b.rounds)}
	for _, r := range b.boot.Boots {
		out = append(out, fmt.Sprintf("  %-15s %7d [%6d]  %5.2f times  goal: %-42s %-5v until %s", r.System, median(r.Ms), median(r.CPUMs), r.Times, r.Goal, r.Holds, r.Until))
	}
	for _, r := range b.boot.Boots {
		out = append(out, fmt.Sprintf("  %-15s %s", r.System, r.About))
	}
	out = append(out, "  load of this machine at each round: "+strings.Join(b.boot.Load, "; "), "", "SIZES PER BOARD")
	for _, r := range b.boot.Boards {
		out = append(out, fmt.Sprintf("  %-12s UKI %5.1f MB (goal %.0f)  init %.2f MB (goal 4)  %d executables (goal %d): %s  holds: %v", r.Board, float64(r.UKI)/1e6, r.GoalMB,
			float64(r.Init)/1e6, len(r.Executables), goalPrograms, strings.Join(r.Executables, " "), r.Holds))
		if strings.HasPrefix(r.Hypervisor, "NONE") {
			out = append(out, "    hypervisor "+r.Hypervisor)
		}
		for _, s := range r.Shares {
			out = append(out, fmt.Sprintf("    %6.2f MB  %-24s %4d files, %6.2f MB unpacked", float64(s.Packed)/1e6, s.What, s.Files, float64(s.Bytes)/1e6))
		}
	}
	m := b.boot.Memory
	if m.UsedKiB == 0 {
		return append(append(out, ""), b.boot.Notes...)
	}
	out = append(out, "", fmt.Sprintf("MEMORY before the first guest, of 2 GiB: %d MiB (goal %d; holds: %v), MemTotal less MemAvailable", m.UsedKiB>>10, m.GoalKiB>>10, m.Holds))
	for what, v := range m.Parts {
		out = append(out, fmt.Sprintf("  %6.1f MiB  %s", float64(v)/1024, what))
	}
	return append(append(out, ""), b.boot.Notes...)
}
