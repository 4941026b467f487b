// SPDX-License-Identifier: Apache-2.0

package console

import (
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

func status() Status {
	return Status{Name: "edge-001", ID: "SHA256:abc", Link: "eth0", Addresses: []string{"10.0.2.15/24"},
		Ledger: Position{Entries: 127, Time: "2026-11-25T16:20:31Z"}, Guests: []Guest{{"shop", "running"}},
		Waiting: []string{"a good ledger" + Elapsed + "32s"}}
}

func TestPanel(t *testing.T) {
	s := status()
	own := Own{Image: "zos 1 (qemu-x86_64)", Lacks: []string{"no TPM"}, Trouble: []string{"memory is full"}, Before: []string{"Kernel panic"}}
	text := Panel(own, &s, false)
	for _, want := range []string{"zos  edge-001  zos 1 (qemu-x86_64)", "SHA256:abc", "eth0: 10.0.2.15/24", "127 entries, ledger time 2026-11-25T16:20:31Z",
		"shop: running", "a good ledger, for 32s", "TROUBLE     memory is full", "before      Kernel panic", "no promise  no TPM", "Press Enter"} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	for _, l := range strings.Split(text, "\n") {
		if len(l) > 80 {
			t.Errorf("a line of %d characters does not fit a screen: %s", len(l), l)
		}
	}
	if text := Panel(Own{Agent: "it has not spoken yet"}, nil, false); !strings.Contains(text, "without a name") || !strings.Contains(text, "has not spoken") {
		t.Errorf("without an agent:\n%s", text)
	}
	s.Ledger.SilentMs = 60_000
	if text := Panel(own, &s, false); !strings.Contains(text, "SILENT for 1m0s") {
		t.Errorf("a ledger that is silent:\n%s", text)
	}
}

// Quiet panels are the same while only what always changes does.
func TestQuiet(t *testing.T) {
	a, b := status(), status()
	b.Ledger.Entries, b.Ledger.Time, b.Waiting[0] = 128, "2026-11-25T16:21:31Z", "a good ledger"+Elapsed+"1m32s"
	if x, y := Panel(Own{}, &a, true), Panel(Own{}, &b, true); x != y {
		t.Errorf("they differ:\n%s\n%s", x, y)
	}
	for _, change := range []func(*Status){
		func(s *Status) { s.Addresses = nil }, func(s *Status) { s.Guests[0].Phase = "plan" }, func(s *Status) { s.Waiting = nil },
		func(s *Status) { s.Ledger.SilentMs = 60_000 }, func(s *Status) { s.Ledger.Entries = 0 },
	} {
		c := status()
		change(&c)
		if Panel(Own{}, &a, true) == Panel(Own{}, &c, true) {
			t.Errorf("a change is not seen: %+v", c)
		}
	}
}

func TestFit(t *testing.T) {
	s := status()
	panel := Panel(Own{Lacks: make([]string, 5), Trouble: []string{strings.Repeat("word ", 100)}}, &s, false)
	for _, rows := range []int{10, 25, 50} {
		got := Fit(panel, rows)
		if n := strings.Count(got, "\n"); n > rows-1 || !strings.Contains(got, "edge-001") || !strings.Contains(got, "Press Enter") || strings.Contains(got, "more in the menu") != (n < strings.Count(panel, "\n")) {
			t.Errorf("%d rows: %d lines\n%s", rows, n, got)
		}
	}
}

func TestNamesSteerNoTerminal(t *testing.T) {
	s := status()
	s.Name, s.Guests[0].Name = "evil\x1b[2J", "a\nZOS STOPPED"
	if text := Panel(Own{}, &s, false); strings.ContainsAny(text, "\x1b") || strings.Contains(text, "\nZOS") {
		t.Errorf("%q", text)
	}
}

func TestPace(t *testing.T) {
	var p Pace
	at := time.Unix(1000, 0)
	for i, step := range []struct {
		after time.Duration
		text  string
		want  bool
	}{
		{0, "a", true},
		{time.Second, "a", false},
		{time.Second, "b", false},   // new, but too soon
		{soonest, "b", true},        // and now it is shown
		{time.Hour / 4, "b", false}, // nothing new
		{latest, "b", true},         // for whoever reads late
		{soonest + time.Second, "c", true},
	} {
		at = at.Add(step.after)
		if got := p.Due(at, step.text); got != step.want {
			t.Errorf("step %d: %v, want %v", i, got, step.want)
		}
	}
	// However fast a node changes, a log stays readable.
	lines := 0
	for range 3600 {
		at = at.Add(time.Second)
		if p.Due(at, at.String()) {
			lines++
		}
	}
	if lines > 3600/10+1 {
		t.Errorf("%d panels in an hour", lines)
	}
}

func TestMenu(t *testing.T) {
	now := time.Unix(1000, 0)
	for name, c := range map[string]struct {
		lines  []string
		want   Act
		answer string // in the last answer
		open   bool
	}{
		"noise does nothing":        {[]string{"\x00\xff", "3", "reset edge"}, Nothing, "", false},
		"enter opens":               {[]string{""}, Nothing, "Type a number", true},
		"a word opens":              {[]string{"menu"}, Nothing, "Type a number", true},
		"state":                     {[]string{"", "1"}, ShowState, "", true},
		"recovery":                  {[]string{"", "2"}, ShowRecovery, "", true},
		"restart":                   {[]string{"", "3"}, Restart, "starts again", false},
		"off":                       {[]string{"", "4"}, TurnOff, "turns off", false},
		"reset asks":                {[]string{"", "5"}, Nothing, "reset edge", true},
		"reset needs the words":     {[]string{"", "5", "yes"}, Nothing, "Nothing was reset", true},
		"the words must be asked":   {[]string{"", "reset edge"}, Nothing, "Type a number", true},
		"another node's name":       {[]string{"", "5", "reset edge-2"}, Nothing, "Nothing was reset", true},
		"reset":                     {[]string{"", "5", "reset edge"}, Reset, "is reset now", false},
		"close":                     {[]string{"", "0"}, Nothing, "closed", false},
		"closed is closed":          {[]string{"", "0", "3"}, Nothing, "", false},
		"what it does not know":     {[]string{"", "sh"}, Nothing, "Type a number", true},
		"no word starts a program":  {[]string{"", "/bin/sh"}, Nothing, "Type a number", true},
		"spaces round it are fine":  {[]string{"", " 2 "}, ShowRecovery, "", true},
		"a refused reset may retry": {[]string{"", "5", "no", "5", "reset edge"}, Reset, "", false},
	} {
		var m Menu
		var answer string
		var act Act
		for _, l := range c.lines {
			if act != Nothing && act != ShowState && act != ShowRecovery {
				t.Errorf("%s: %q before the end", name, act)
			}
			answer, act = m.Line(now, "edge", l)
		}
		if act != c.want || !strings.Contains(answer, c.answer) || m.Open(now) != c.open {
			t.Errorf("%s: %q, %q, open %v", name, answer, act, m.Open(now))
		}
	}
	var m Menu
	m.Line(now, "edge", "")
	m.Line(now, "edge", "5")
	if _, act := m.Line(now.Add(MenuTime), "edge", "reset edge"); act != Nothing {
		t.Error("a menu that was left open takes an order")
	}
}

func TestTypedLines(t *testing.T) {
	var got []string
	err := Lines(strings.NewReader("one\r\n\n"+strings.Repeat("x", 600)+"\ntwo\n"), func(l string) { got = append(got, l) })
	if !errors.Is(err, io.EOF) || got[0] != "one" || got[1] != "" || got[len(got)-1] != "two" || len(got) < 5 {
		t.Errorf("%q, %v", got, err)
	}
}

func TestIsVT(t *testing.T) {
	for name, want := range map[string]bool{"tty0": true, "tty1": true, "ttyS0": false, "ttyAMA0": false, "hvc0": false, "": false} {
		if IsVT(name) != want {
			t.Errorf("%q: %v", name, IsVT(name))
		}
	}
}
