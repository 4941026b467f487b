// SPDX-License-Identifier: Apache-2.0

package console

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
)

// Status is what the agent tells the consoles about itself; agent/status is the
// other end. It is shown, never acted on.
type Status struct {
	Name      string   `json:"name"`
	ID        string   `json:"id"`
	Link      string   `json:"link"` // of the uplink, "" before there is one
	Addresses []string `json:"addresses"`
	Ledger    Position `json:"ledger"`
	Guests    []Guest  `json:"guests"`
	Waiting   []string `json:"waiting"` // what for, and for how long already
}

// Position is how far the node is in the ledger.
type Position struct {
	Entries  int64  `json:"entries"`  // 0 before the first look
	Time     string `json:"time"`     // the ledger's, RFC 3339
	SilentMs int64  `json:"silentMs"` // since it was last heard of
}

// Guest is one deployment on the node.
type Guest struct {
	Name  string `json:"name"`
	Phase string `json:"phase"`
}

// ReadStatus decodes what the agent said.
func ReadStatus(b []byte) (Status, error) {
	var s Status
	if err := json.Unmarshal(b, &s); err != nil {
		return Status{}, fmt.Errorf("status of the agent: %w", err)
	}
	return s, nil
}

// Own is what init itself knows.
type Own struct {
	Image   string   // what runs
	Agent   string   // "", or why there is no status from it
	Lacks   []string // what this boot cannot promise
	Trouble []string // what goes wrong now
	Before  []string // how earlier boots ended, when they ended badly
}

const (
	width = 78
	label = 10 // room for a line's name
	// silent is when a ledger that says nothing is worth a word; a node looks
	// each second.
	silent = 15 * time.Second
	// most is how many values one list shows.
	most = 6
)

// Panel draws the node's state, one line a fact. Only what changes by itself
// all the time (the position in the ledger, how long a wait lasts) is left out
// with quiet, so that two panels can be compared.
func Panel(o Own, s *Status, quiet bool) string {
	var b strings.Builder
	bar := strings.Repeat("=", width)
	name := "a node without a name yet"
	if s != nil && s.Name != "" {
		name = s.Name
	}
	fmt.Fprintf(&b, "%s\n  zos  %s  %s\n", bar, clean(name), clean(o.Image))
	line := func(what, text string) {
		for i, l := range wrap(clean(text), width-4-label) {
			if i > 0 {
				what = ""
			}
			fmt.Fprintf(&b, "  %-*s  %s\n", label, what, l)
		}
	}
	list := func(what, none string, all []string) {
		if len(all) == 0 && none != "" {
			line(what, none)
		}
		for i, v := range all {
			if i == most {
				line("", fmt.Sprintf("and %d more", len(all)-most))
				break
			}
			if i > 0 {
				what = ""
			}
			line(what, v)
		}
	}
	if s != nil {
		line("id", s.ID)
		at := "none yet"
		if s.Link != "" && len(s.Addresses) > 0 {
			at = s.Link + ": " + strings.Join(s.Addresses, ", ")
		}
		line("address", at)
		line("ledger", s.Ledger.text(quiet))
		var guests []string
		for _, g := range s.Guests {
			guests = append(guests, g.Name+": "+g.Phase)
		}
		list("guests", "none", guests)
		waiting := s.Waiting
		if quiet {
			waiting = nil
			for _, w := range s.Waiting {
				what, _, _ := strings.Cut(w, Elapsed)
				waiting = append(waiting, what)
			}
		}
		list("waits for", "nothing", waiting)
	}
	if o.Agent != "" {
		line("agent", o.Agent)
	}
	list("TROUBLE", "", o.Trouble)
	list("before", "", o.Before)
	list("no promise", "", o.Lacks)
	fmt.Fprintf(&b, "  Press Enter for the menu.\n%s\n", bar)
	return b.String()
}

// Elapsed stands in a Waiting between what is waited for and how long already.
const Elapsed = ", for "

func (p Position) text(quiet bool) string {
	if p.Entries == 0 {
		return "not reached yet"
	}
	text := "followed"
	if !quiet {
		text = fmt.Sprintf("%d entries, ledger time %s", p.Entries, p.Time)
	}
	if d := time.Duration(p.SilentMs) * time.Millisecond; d > silent {
		text += ", SILENT"
		if !quiet {
			text += " for " + d.Round(time.Second).String()
		}
	}
	return text
}

// clean keeps what names a thing from steering the terminal that shows it.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || r == unicode.ReplacementChar {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Pace decides when a panel goes onto a serial line, where it stays: at once
// when it says something new, but not more often than every few seconds, and
// now and then for whoever begins to read late.
type Pace struct {
	last string
	at   time.Time
}

const (
	soonest = 10 * time.Second
	latest  = 30 * time.Minute
)

// Due says whether the panel, drawn quiet, is to be shown now. It takes yes for
// done.
func (p *Pace) Due(now time.Time, quiet string) bool {
	first := p.at.IsZero()
	since := now.Sub(p.at)
	if !first && since < latest && (quiet == p.last || since < soonest) {
		return false
	}
	p.last, p.at = quiet, now
	return true
}

// Fit cuts a panel to a screen of so many rows. Its end says how to get on; what
// does not fit is in the middle, and in the menu.
func Fit(panel string, rows int) string {
	const end = 2 // lines that stay
	lines := strings.Split(strings.TrimSuffix(panel, "\n"), "\n")
	if room := rows - 1; len(lines) > room && room > 2*end {
		cut := append(lines[:room-end-1:room-end-1], "  (more in the menu)")
		lines = append(cut, lines[len(lines)-end:]...)
	}
	return strings.Join(lines, "\n") + "\n"
}

// Redraw is a panel for a screen of its own: written over the one before, line
// by line, so that nothing flickers.
func Redraw(panel string) string {
	return "\x1b[H" + strings.ReplaceAll(panel, "\n", "\x1b[K\n") + "\x1b[J"
}
