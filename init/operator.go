// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/init/console"
	"github.com/zos-node/zos/init/power"
)

const (
	// redraw is how often the screen follows what changes.
	redraw = time.Second
	// speak is how long an agent that runs may say nothing of its state before
	// the console says that; it speaks every few seconds.
	speak = 20 * time.Second
)

// board is what the consoles show, from all sides.
type board struct {
	mu      sync.Mutex
	status  *console.Status
	heard   time.Time // when it last spoke, or began to run
	runs    bool
	agent   string // why there is nothing from it
	ends    int
	lacks   []string
	earlier []string
	short   map[string]string
	shut    bool // a failure stands on the screen
}

func (b *board) told(text []byte) {
	s, err := console.ReadStatus(text)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard = time.Now()
	if err != nil {
		b.agent = err.Error()
		return
	}
	b.status, b.agent = &s, ""
}

// began: an agent that is started again and then hangs is one that runs, and
// not for ever the one that ended.
func (b *board) began() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.heard, b.runs = time.Now(), true
}

func (b *board) ended(why string) (times int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.ends++
	b.runs = false
	b.agent = fmt.Sprintf("ended %d times, last: %s; it is started again", b.ends, why)
	return b.ends
}

// trouble notes what is short; an empty text takes it away.
func (b *board) trouble(name, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.short == nil {
		b.short = map[string]string{}
	}
	b.short[name] = text
	if text == "" {
		delete(b.short, name)
	}
}

func (b *board) lack(all []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lacks = all
}

func (b *board) addBefore(text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.earlier = append(b.earlier, text)
}

func (b *board) close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.shut {
		b.shut = true
		// A machine without a screen has nothing to show.
		_ = console.Activate("/dev", console.LogVT)
	}
}

// show is what there is to draw.
func (b *board) show(image string) (console.Own, *console.Status, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	o := console.Own{Image: image, Agent: b.agent, Lacks: slices.Clone(b.lacks), Before: slices.Clone(b.earlier)}
	for _, k := range slices.Sorted(maps.Keys(b.short)) {
		o.Trouble = append(o.Trouble, b.short[k])
	}
	silent := b.runs && time.Since(b.heard) > speak
	switch {
	case o.Agent != "" && !silent:
	case o.Agent == "" && b.status == nil:
		o.Agent = "starts"
	case silent:
		o.Agent = "runs, but says nothing of its state"
	}
	return o, b.status, !b.shut
}

func (b *board) name() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.status == nil {
		return ""
	}
	return b.status.Name
}

// operators serves whoever stands in front of the machine or holds its serial
// line: a panel that is kept up to date, and a menu.
func (n *node) operators() {
	active, err := os.ReadFile("/sys/class/tty/console/active")
	if err != nil {
		n.log.Warn("consoles", "err", err)
		return
	}
	image := imageName()
	screen := false
	for _, name := range strings.Fields(string(active)) {
		if console.IsVT(name) {
			screen = true
			continue
		}
		f, err := os.OpenFile("/dev/"+name, os.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
		if err != nil {
			n.log.Warn("nobody can type here", "console", name, "err", err)
			continue
		}
		n.guard("serial panel", func() { n.serve(image, f, n.out.Serial, &serial{}) })
	}
	if !screen {
		return
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/tty%d", console.PanelVT), os.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK, 0)
	if err == nil {
		err = console.Activate("/dev", console.PanelVT)
	}
	if err != nil {
		n.log.Warn("the screen shows no panel", "err", err)
		return
	}
	// What cannot be drawn now is drawn again soon.
	rows := console.Rows(f)
	write := func(text string) { _, _ = f.WriteString(text) }
	n.guard("screen panel", func() { n.serve(image, f, write, &vga{rows: rows}) })
}

// drawer decides when a panel is shown on a kind of console, and how.
type drawer interface {
	// draw returns what to write now, "" for nothing.
	draw(now time.Time, o console.Own, s *console.Status) string
	// over says that the panel will be drawn over what stands there.
	over()
}

// serial keeps what was written: it is written seldom.
type serial struct{ pace console.Pace }

func (p *serial) draw(now time.Time, o console.Own, s *console.Status) string {
	if s == nil && o.Agent == "starts" || !p.pace.Due(now, console.Panel(o, s, true)) {
		return ""
	}
	return "\n" + console.Panel(o, s, false)
}

func (p *serial) over() {}

// vga is drawn over.
type vga struct {
	rows int
	last string
}

func (p *vga) draw(_ time.Time, o console.Own, s *console.Status) string {
	text := console.Fit(console.Panel(o, s, false), p.rows)
	if text == p.last {
		return ""
	}
	p.last = text
	return console.Redraw(text)
}

func (p *vga) over() { p.last = "" }

// serve runs one console: panel and menu take turns.
func (n *node) serve(image string, in *os.File, write func(string), d drawer) {
	lines := make(chan string)
	n.guard("console input", func() {
		// A console without anybody who could type (no such port) ends here.
		if err := console.Lines(in, func(l string) { lines <- l }); err != nil {
			n.log.Debug("console input", "console", in.Name(), "err", err)
		}
	})
	var menu console.Menu
	tick := time.NewTicker(redraw)
	defer tick.Stop()
	for {
		select {
		case now := <-tick.C:
			if o, s, shown := n.board.show(image); shown && !menu.Open(now) {
				if text := d.draw(now, o, s); text != "" {
					write(text)
				}
			}
		case l := <-lines:
			answer, act := menu.Line(time.Now(), n.board.name(), l)
			write(answer + n.act(act, image, in.Name()))
			d.over()
		}
	}
}

// act does what the menu says.
func (n *node) act(a console.Act, image, where string) string {
	switch a {
	case console.ShowState:
		o, s, _ := n.board.show(image)
		return console.Panel(o, s, false)
	case console.ShowRecovery:
		return n.recovery(image)
	case console.Restart, console.TurnOff, console.Reset:
		n.log.Warn("asked to end at the console", "console", where, "what", a)
		how := power.Reboot
		if a == console.TurnOff {
			how = power.Off
		}
		n.forget.Store(a == console.Reset)
		select {
		case n.ending <- how:
		default: // it ends already
		}
	}
	return ""
}

// imageName is what os-release says that this image is.
func imageName() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return "an image without a name"
	}
	for scan := bufio.NewScanner(bytes.NewReader(b)); scan.Scan(); {
		if v, ok := strings.CutPrefix(scan.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "an image without a name"
}
