// SPDX-License-Identifier: Apache-2.0

// Package devices loads the drivers of the machine that the node runs on, in
// two stages: first what the way to the ledger needs (buses, network cards,
// the boot medium), then, while the agent already starts, what guests need.
// Each stage loads the modules that the image names for it and, for each
// device that the kernel found, those whose modalias matches.
package devices

import (
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/kernel/kmod"
)

// Loader is what Load needs of a module index.
type Loader interface {
	Match(modalias string) []string
	Load(module string) error
}

// Stage is one of the two.
type Stage struct {
	Name    string
	Modules []string // loaded by name
	Skip    []string // prefixes of modaliases that wait for the next stage
	Wait    []string // modules that wait for the next stage, whoever asks for them
}

// Early skips what the processor could do faster and what the way to the
// ledger does not need; it is late's.
func Early(modules, wait []string) Stage {
	return Stage{Name: "early", Modules: modules, Skip: []string{"cpu:"}, Wait: wait}
}

// Late skips nothing.
func Late(modules []string) Stage { return Stage{Name: "late", Modules: modules} }

// buttons are the power button's drivers.
var buttons = []string{"button", "evdev"}

// LoadLate loads the late stage. Before all of it come the power button's drivers,
// and then listen is called: whoever presses the button means it, however young
// the boot is.
func LoadLate(l Loader, modules []string, modaliases func() ([]string, error), listen func(), log *slog.Logger) (Result, error) {
	for _, m := range buttons {
		if err := l.Load(m); err != nil && !errors.Is(err, kmod.ErrUnknown) && !errors.Is(err, kmod.ErrNoDevice) {
			log.Warn("the power button's driver", "module", m, "err", err)
		}
	}
	listen()
	return Load(l, Late(modules), modaliases, log)
}

// slow is when a driver is worth a line of its own.
const slow = 200 * time.Millisecond

// Result is what the console says of a stage.
type Result struct {
	Stage  string
	Loaded int
	Absent []string // modules that are not for this machine
	Failed []string // modules that should have loaded
}

// Load goes twice over the devices: a bus driver makes new ones appear.
func Load(l Loader, stage Stage, modaliases func() ([]string, error), log *slog.Logger) (Result, error) {
	r := Result{Stage: stage.Name}
	tried := map[string]bool{}
	load := func(m string) {
		if tried[m] {
			return
		}
		tried[m] = true
		start := time.Now()
		switch err := l.Load(m); {
		case err == nil:
			r.Loaded++
		case errors.Is(err, kmod.ErrNoDevice), errors.Is(err, kmod.ErrUnknown):
			r.Absent = append(r.Absent, m)
		default:
			r.Failed = append(r.Failed, m)
			log.Error("module", "module", m, "err", err)
		}
		if took := time.Since(start); took > slow {
			log.Info("a driver took long", "module", m, "took", took.Round(time.Millisecond))
		}
	}
	for pass := range 2 {
		all, err := modaliases()
		if err != nil {
			return r, err
		}
		for _, a := range all {
			if skipped(a, stage.Skip) {
				continue
			}
			for _, m := range l.Match(a) {
				if !slices.Contains(stage.Wait, m) {
					load(m)
				}
			}
		}
		if pass == 0 {
			for _, m := range stage.Modules {
				load(m)
			}
		}
	}
	return r, nil
}

func skipped(modalias string, prefixes []string) bool {
	for _, p := range prefixes {
		if strings.HasPrefix(modalias, p) {
			return true
		}
	}
	return false
}

// Yield gives the processor to whoever else wants it, from now on and for this
// goroutine only, which must end without returning the thread: drivers that
// guests will need do not hold up the agent's way to the ledger.
func Yield() error {
	runtime.LockOSThread()
	if err := unix.Setpriority(unix.PRIO_PROCESS, unix.Gettid(), 19); err != nil {
		return fmt.Errorf("priority: %w", err)
	}
	return nil
}

// Report is one line for the console.
func (r Result) Report(log *slog.Logger, took time.Duration) {
	log.Info("drivers", "stage", r.Stage, "loaded", r.Loaded, "notForThisMachine", r.Absent, "failed", r.Failed, "took", took.Round(time.Millisecond))
}
