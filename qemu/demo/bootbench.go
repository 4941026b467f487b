// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/peers"
)

// bootResults is build/bench-boot.json.
type bootResults struct {
	At          string    `json:"at"`
	Machine     string    `json:"machine"`
	Accelerator string    `json:"accelerator"`
	Load        []string  `json:"loadAverages"` // of this machine, before each round
	Boots       []bootRow `json:"boots"`
	Boards      []weighed `json:"boards"`
	Memory      memory    `json:"memory"`
	Notes       []string  `json:"notes"` // what was not measured, and why
}

// bootRow is one system's boots. All are times from the start of the kernel, on
// the kernel's own clock.
type bootRow struct {
	System string  `json:"system"`
	About  string  `json:"about"`
	Until  string  `json:"until"`
	Ms     []int64 `json:"ms"`
	CPUMs  []int64 `json:"emulatorCpuMs"` // what the emulator used until then, firmware included: it does not depend on who else works here
	// Times is what the node's median is of this one's; for the limit, where
	// it is to be small, how many times as long the node takes.
	Times float64 `json:"times"`
	Goal  string  `json:"goal"`
	Holds bool    `json:"holds"`
}

// bootBench measures boots: make bench BENCH=boot.
type bootBench struct {
	*bench
	boot    bootResults
	systems []peers.System
	lastCPU int64 // what the emulator had used at a peer's prompt
}

const (
	peerLimit = 30 * time.Minute // an emulated Debian on a busy machine
	limitRow  = "limit"
	nodeRow   = "zos"
)

// bootRows are what is measured, each by itself, in this order.
const bootRows = "sizes,boots,memory"

func (b *bootBench) steps() []step {
	all := []step{{"node image for production", b.production}}
	for _, m := range []struct {
		row   string
		steps []step
	}{
		{"sizes", []step{{"sizes of every board", b.sizes}}},
		{"boots", []step{{"peers: Debian and u-root", b.peers}, {"boots", b.boots}}},
		{"memory", []step{{"memory before the first guest", b.memory}}},
	} {
		if slices.Contains(strings.Split(b.rows, ","), m.row) {
			all = append(all, m.steps...)
		} else {
			b.boot.Notes = append(b.boot.Notes, "SKIP "+m.row+": left out by -rows")
		}
	}
	return append(all, step{"write " + b.benchFile, b.write})
}

// production builds the image whose boots are measured: no fault program.
func (b *bootBench) production(ctx context.Context) ([]string, error) {
	b.out = b.path("images", "boot")
	seed, err := b.makeSeed(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := b.command(ctx, b.zos, "node", "build", "--board", b.board, "--root", b.chain.root, "--seed", seed, "-o", b.out); err != nil {
		return nil, err
	}
	return nil, b.loadBuild(b.out)
}

// peers makes what boots are compared with. What cannot be made here is named,
// not left out in silence.
func (b *bootBench) peers(ctx context.Context) ([]string, error) {
	dir, err := filepath.Abs(b.path("cache", "peers"))
	if err != nil {
		return nil, err
	}
	var notes []string
	add := func(name string, s peers.System, err error) {
		if err != nil {
			b.boot.Notes = append(b.boot.Notes, "SKIP "+name+": "+err.Error())
			notes = append(notes, "SKIP "+name+": "+err.Error())
			return
		}
		b.systems = append(b.systems, s)
		notes = append(notes, fmt.Sprintf("%-15s %s", s.Name, s.About))
	}
	s, err := peers.URoot(ctx, dir)
	add("u-root", s, err)
	for _, d := range peers.Debians {
		s, err := d.Make(ctx, dir)
		add(d.Name, s, err)
	}
	return notes, ctx.Err()
}

func (b *bootBench) boots(ctx context.Context) ([]string, error) {
	b.accel = qemu.Probe(ctx, qemu.Binary)
	idle, err := b.idleInitramfs(ctx)
	if err != nil {
		return nil, err
	}
	rows := []*bootRow{
		{System: limitRow, About: "the node's kernel and command line, and an init that only exits", Until: "that init", Goal: "the node takes at most 1.5 times as long"},
		{System: nodeRow, About: "the node's image, from kernel and initramfs", Until: "the agent follows the ledger"},
	}
	for _, s := range b.systems {
		row := &bootRow{System: s.Name, About: s.About, Until: "login prompt on the serial port", Goal: "the node is at least 3 times as fast"}
		if s.Login == "" {
			row.Until, row.Goal = "prompt of its shell on the serial port", "none"
		}
		rows = append(rows, row)
	}
	for range b.rounds {
		b.boot.Load = append(b.boot.Load, loadAverage())
		for i, row := range rows {
			var t timing
			var err error
			switch i {
			case 0:
				t, err = b.ownBoot(ctx, idle, idleSaid)
			case 1:
				t, err = b.ownBoot(ctx, filepath.Join(b.out, "seeded"), nodeSaid)
			default:
				t, err = b.peerBoot(ctx, b.systems[i-2])
			}
			if err != nil {
				return nil, fmt.Errorf("boot %s: %w", row.System, err)
			}
			row.Ms, row.CPUMs = append(row.Ms, t.ms), append(row.CPUMs, t.cpu)
			fmt.Fprintf(b.chain.steps.out, "        %-15s %6d ms, emulator %6d ms\n", row.System, t.ms, t.cpu)
		}
	}
	node := float64(median(rows[1].Ms))
	var notes []string
	for i, row := range rows {
		its := float64(median(row.Ms))
		switch {
		case i == 0:
			row.Times = node / its
			row.Holds = row.Times <= 1.5
		case i > 1:
			row.Times = its / node
			row.Holds = row.Goal == "none" || row.Times >= 3
		default:
			row.Holds = true
		}
		b.boot.Boots = append(b.boot.Boots, *row)
		notes = append(notes, fmt.Sprintf("%-15s %v ms, emulator %v ms, %.2f times (goal: %s; holds: %v)", row.System, row.Ms, row.CPUMs, row.Times, row.Goal, row.Holds))
	}
	return notes, nil
}

// timing is one boot.
type timing struct{ ms, cpu int64 }

// ownBoot boots one of our initramfses, which tells the uptime itself.
func (b *bootBench) ownBoot(ctx context.Context, initrd string, said *regexp.Regexp) (t timing, err error) {
	return b.measured(ctx, b.options(initrd), func(ctx context.Context, m *qemu.Machine) (int64, error) {
		_, groups, _, err := m.Console.Expect(ctx, 0, said)
		if err != nil {
			return 0, err
		}
		return uptimeMs(groups[1])
	})
}

// peerBoot boots another system until its prompt, and then asks it how long it
// has been running: less the time between the two, that was at the prompt.
func (b *bootBench) peerBoot(ctx context.Context, s peers.System) (timing, error) {
	o := b.options(s.Initrd)
	o.Cmdline, o.Args, o.Faults = s.Cmdline, s.Args, false
	if s.Kernel != "" {
		o.Kernel = s.Kernel
	}
	return b.measured(ctx, o, func(ctx context.Context, m *qemu.Machine) (int64, error) {
		at, err := m.Console.Prompt(ctx, regexp.MustCompile(s.Prompt))
		if err != nil {
			return 0, err
		}
		b.lastCPU = m.CPUTime().Milliseconds()
		if s.Login != "" {
			if err := m.Type(s.Login); err != nil {
				return 0, err
			}
			if _, err := m.Console.Prompt(ctx, regexp.MustCompile(s.Shell)); err != nil {
				return 0, err
			}
		}
		mark := m.Console.Mark()
		if err := m.Type("cat /proc/uptime"); err != nil {
			return 0, err
		}
		line, groups, _, err := m.Console.Expect(ctx, mark, regexp.MustCompile(`(?:^|\s)(\d+\.\d\d) \d+\.\d\d\s*$`))
		if err != nil {
			return 0, err
		}
		up, err := strconv.ParseFloat(groups[1], 64)
		if err != nil {
			return 0, fmt.Errorf("uptime %q: %w", groups[1], err)
		}
		return int64(up*1000) - line.At.Sub(at).Milliseconds(), nil
	})
}

// measured starts a machine, once more where the emulator's race broke it, and
// reads what the emulator used until until is there.
func (b *bootBench) measured(ctx context.Context, o qemu.Options, until func(context.Context, *qemu.Machine) (int64, error)) (t timing, err error) {
	ctx, cancel := context.WithTimeout(ctx, peerLimit)
	defer cancel()
	for tries := 0; ; tries++ {
		m, err := qemu.Start(o)
		if err != nil {
			return t, err
		}
		b.lastCPU = 0
		t.ms, err = until(ctx, m)
		if t.cpu = b.lastCPU; t.cpu == 0 {
			t.cpu = m.CPUTime().Milliseconds()
		}
		again := err != nil && tries == 0 && m.EmulatorFault()
		err = errors.Join(err, m.Close())
		if again {
			b.boot.Notes = append(b.boot.Notes, "one boot was made again: the emulator broke its kernel")
			continue
		}
		return t, err
	}
}

// uptimeMs reads milliseconds, or what Go writes of a duration.
func uptimeMs(text string) (int64, error) {
	if ms, err := strconv.ParseInt(text, 10, 64); err == nil {
		return ms, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		return 0, fmt.Errorf("uptime %q: %w", text, err)
	}
	return d.Milliseconds(), nil
}

func loadAverage() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err.Error()
	}
	return strings.Join(slices.Clip(strings.Fields(string(b))[:3]), " ")
}

func (b *bootBench) write(context.Context) ([]string, error) {
	b.boot.At, b.boot.Machine = time.Now().UTC().Format(time.RFC3339), fmt.Sprintf("%d processors, %s/%s", runtime.NumCPU(), runtime.GOOS, runtime.GOARCH)
	b.boot.Accelerator = b.accel.Name + ": " + b.accel.Why
	out, err := json.MarshalIndent(b.boot, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(b.benchFile, append(out, '\n'), 0o644); err != nil {
		return nil, fmt.Errorf("results: %w", err)
	}
	return b.table(), nil
}
