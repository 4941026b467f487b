// SPDX-License-Identifier: Apache-2.0

// Package devices loads the drivers of the machine that the node runs on:
// first the modules that the image names, then, for each device that the
// kernel found, those whose modalias matches.
package devices

import (
	"errors"
	"log/slog"
	"time"

	"github.com/zos-node/zos/kernel/kmod"
)

// Loader is what Load needs of a module index.
type Loader interface {
	Boot() []string
	Match(modalias string) []string
	Load(module string) error
}

// slow is when a driver is worth a line of its own.
const slow = 200 * time.Millisecond

// Result is what the console says of it.
type Result struct {
	Loaded    int
	Absent    []string // modules that are not for this machine
	Unclaimed int      // devices that no module of the image is for
	Failed    []string // modules that should have loaded
}

// Load goes twice over the devices: a bus driver makes new ones appear.
func Load(l Loader, modaliases func() ([]string, error), log *slog.Logger) (Result, error) {
	var r Result
	tried := map[string]bool{}
	load := func(m string) {
		if tried[m] {
			return
		}
		tried[m] = true
		start := time.Now()
		defer func() {
			if took := time.Since(start); took > slow {
				log.Info("a driver took long", "module", m, "took", took.Round(time.Millisecond))
			}
		}()
		switch err := l.Load(m); {
		case err == nil:
			r.Loaded++
		case errors.Is(err, kmod.ErrNoDevice), errors.Is(err, kmod.ErrUnknown):
			r.Absent = append(r.Absent, m)
		default:
			r.Failed = append(r.Failed, m)
			log.Error("module", "module", m, "err", err)
		}
	}
	for pass := range 2 {
		all, err := modaliases()
		if err != nil {
			return r, err
		}
		r.Unclaimed = 0
		for _, a := range all {
			found := l.Match(a)
			if len(found) == 0 {
				r.Unclaimed++
			}
			for _, m := range found {
				load(m)
			}
		}
		if pass == 0 {
			for _, m := range l.Boot() {
				load(m)
			}
		}
	}
	return r, nil
}

// Report is one line for the console.
func (r Result) Report(log *slog.Logger, took time.Duration) {
	log.Info("drivers", "loaded", r.Loaded, "notForThisMachine", r.Absent, "failed", r.Failed, "took", took.Round(time.Millisecond))
}
