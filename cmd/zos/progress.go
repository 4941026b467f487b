// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

// terminal says whether people look on.
func terminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// progress draws a bar on a terminal, and writes nothing elsewhere.
func (a *app) progress(step string, done, total int) {
	if a.json || !terminal(a.err) {
		return
	}
	const width = 24
	full := width * done / total
	fmt.Fprintf(a.err, "\r\x1b[K[%s%s] %s", strings.Repeat("#", full), strings.Repeat(".", width-full), harmless(step))
	a.bar = true
}

// clearBar takes the bar away, before anything else is said.
func (a *app) clearBar() {
	if a.bar {
		fmt.Fprint(a.err, "\r\x1b[K")
		a.bar = false
	}
}

// lines writes to standard error in lines of their own, where a bar may stand.
type lines struct{ a *app }

func (l lines) Write(b []byte) (int, error) {
	l.a.clearBar()
	return l.a.err.Write(b)
}

// redraw is how often a bar with a rate is drawn.
const redraw = 200 * time.Millisecond

// bytesDone draws the progress of long work, where people look on: how much,
// how fast, and how long it will take at that rate. It is nil where nobody
// looks.
func (a *app) bytesDone(step string) func(done, total int64) {
	if a.json || !terminal(a.err) {
		return nil
	}
	start := time.Now()
	var last time.Time
	return func(done, total int64) {
		now := time.Now()
		switch {
		case done >= total:
			a.clearBar()
		case now.Sub(last) >= redraw:
			last = now
			a.progress(pace(step, done, total, now.Sub(start)), int(done*100/max(total, 1)), 100)
		}
	}
}

// pace says how far work is, its rate so far, and the time left.
func pace(step string, done, total int64, took time.Duration) string {
	text := fmt.Sprintf("%3d %%", done*100/max(total, 1))
	if took >= time.Second && done > 0 {
		rate := float64(done) / took.Seconds()
		left := time.Duration(float64(total-done) / rate * float64(time.Second)).Round(time.Second)
		text += fmt.Sprintf("  %s/s  %v left", size(int64(rate)), left)
	}
	return text + "  " + step
}

// percentDone draws the progress of what is not bytes; nil where nobody looks.
// Only a new percentage is drawn.
func (a *app) percentDone(step string) func(done, total int64) {
	if a.json || !terminal(a.err) {
		return nil
	}
	last := int64(-1)
	return func(done, total int64) {
		percent := done * 100 / max(total, 1)
		switch {
		case done >= total:
			a.clearBar()
		case percent != last:
			a.progress(fmt.Sprintf("%3d %% %s", percent, step), int(percent), 100)
		}
		last = percent
	}
}

// entriesDone is the same for work on a ledger, which has several steps.
func (a *app) entriesDone(what string) func(step string, done, total int64) {
	steps := map[string]func(done, total int64){}
	return func(step string, done, total int64) {
		draw, ok := steps[step]
		if !ok {
			draw = a.percentDone(what + ": " + step)
			steps[step] = draw
		}
		if draw != nil {
			draw(done, total)
		}
	}
}
