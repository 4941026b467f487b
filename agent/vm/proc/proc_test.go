// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/vm"
)

func TestParseStartTicks(t *testing.T) {
	line := "4711 (a) b (c) S 1 4711 4711 0 -1 4194560 100 0 0 0 1 2 0 0 20 0 1 0 987654 1 2 3"
	if n, err := parseStartTicks(line); err != nil || n != 987654 {
		t.Errorf("got %d, %v", n, err)
	}
	for _, bad := range []string{"", "1 (x) S 1 2", strings.Replace(line, "987654", "soon", 1)} {
		if _, err := parseStartTicks(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
	if n, err := startTicks(os.Getpid()); err != nil || n == 0 {
		t.Errorf("of this process: %d, %v", n, err)
	}
}

func TestNext(t *testing.T) {
	for name, c := range map[string]struct {
		in     string
		n      int
		object string
		bad    bool
	}{
		"empty":          {in: ""},
		"blank":          {in: " \n\n", n: 3},
		"hole":           {in: "\x00\x00", n: 2},
		"whole":          {in: "{\"a\":1}\n\n{", n: 7, object: `{"a":1}`},
		"several lines":  {in: "\n{\n \"a\": {\"b\": null}\n}\n", n: 22, object: "{\n \"a\": {\"b\": null}\n}"},
		"behind a hole":  {in: "\x00\x00{}", n: 4, object: "{}"},
		"half":           {in: "{\"a\":", n: 0},
		"half in string": {in: "{\"a", n: 0},
		"garbage line":   {in: "oops\n{}", n: 5, bad: true},
		"garbage":        {in: "oops", n: 4, bad: true},
		"endless":        {in: "{\"a\":\"" + strings.Repeat("x", maxObject+1), n: maxObject + 7, bad: true},
	} {
		n, object, err := next([]byte(c.in))
		if n != c.n || string(object) != c.object || (err != nil) != c.bad {
			t.Errorf("%s: %d %q %v", name, n, object, err)
		}
	}
}

func FuzzNext(f *testing.F) {
	f.Add([]byte("{}\n{"))
	f.Add([]byte("\x00 oops\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, object, err := next(b)
		if n < 0 || n > len(b) || (err != nil && n == 0) || (object != nil && n == 0) {
			t.Fatalf("%q: %d %q %v: does not advance", b, n, object, err)
		}
	})
}

func TestExpendable(t *testing.T) {
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if err := expendable(pid); err != nil {
		t.Error(err)
	}
	if b, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid)); err != nil || strings.TrimSpace(string(b)) != score {
		t.Errorf("%q, %v", b, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err == nil {
		t.Error("it was not killed")
	}
	if err := expendable(pid); err != nil {
		t.Errorf("one that is gone: %v", err)
	}
}

func quiet() *slog.Logger { return slog.New(slog.NewTextHandler(io.Discard, nil)) }

func parseWords(object []byte, now time.Time) (Parsed, error) {
	var e struct{ Event string }
	if err := json.Unmarshal(object, &e); err != nil {
		return Parsed{}, err
	}
	switch e.Event {
	case "panic", "reboot":
		return Parsed{Event: vm.Event{Kind: vm.EventKind(e.Event), At: now}}, nil
	}
	return Parsed{Booted: e.Event == "booted"}, nil
}

// An agent that comes back to a VMM that died without it finds what was
// written before, and the end.
func TestAdoptGone(t *testing.T) {
	dir := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{dir: dir, state: State{Driver: "d", ID: "x", PID: 1 << 30, StartTicks: 1, BootID: boot}}
	if err := p.writeState(); err != nil {
		t.Fatal(err)
	}
	text := "{\n \"event\": \"booted\"\n}\n\n{\"event\":\"panic\"}\n{\"event\":\"panic\"}\nnonsense\n{\"event\":\"reb"
	if err := os.WriteFile(filepath.Join(dir, EventsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for round := range 2 { // the second finds the panic in the state file
		if _, err := Adopt(dir, "other", parseWords, nil, quiet()); err == nil {
			t.Error("another driver's VM was adopted")
		}
		q, err := Adopt(dir, "d", parseWords, nil, quiet())
		if err != nil {
			t.Fatal(err)
		}
		var kinds []string
		for e := range q.Events() {
			kinds = append(kinds, string(e.Kind))
		}
		if got := strings.Join(kinds, " "); got != "panic exit" {
			t.Errorf("round %d: events %q", round, got)
		}
		if q.Alive() {
			t.Error("still alive")
		}
	}
}

// A pid that now belongs to another process is not adopted.
func TestAdoptRecycledPID(t *testing.T) {
	dir := t.TempDir()
	boot, err := bootID()
	if err != nil {
		t.Fatal(err)
	}
	ticks, err := startTicks(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for name, s := range map[string]State{
		"other start": {PID: os.Getpid(), StartTicks: ticks + 1, BootID: boot},
		"other boot":  {PID: os.Getpid(), StartTicks: ticks, BootID: "another"},
	} {
		s.Driver, s.ID = "d", "x"
		if err := (&Process{dir: dir, state: s}).writeState(); err != nil {
			t.Fatal(err)
		}
		p, err := Adopt(dir, "d", parseWords, nil, quiet())
		if err != nil {
			t.Fatal(err)
		}
		if e := <-p.Events(); e.Kind != vm.EventExit {
			t.Errorf("%s: %+v", name, e)
		}
	}
	if _, err := Adopt(t.TempDir(), "d", parseWords, nil, quiet()); err == nil {
		t.Error("an empty directory was adopted")
	}
}

func TestPunch(t *testing.T) {
	name := filepath.Join(t.TempDir(), "serial")
	if err := os.WriteFile(name, []byte(strings.Repeat("x", 4*keep)), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := punch(name, -1); err != nil {
		t.Skipf("SKIP punch: this file system makes no holes: %v", err)
	}
	info, err := os.Stat(name)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size() != 4*keep {
		t.Errorf("size became %d", info.Size())
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > keep+8192 {
		t.Errorf("%d bytes are still used", used)
	}
}

func TestRights(t *testing.T) {
	if r := (Rule{Write: true, Exec: true}).rights(false); r&^fileRights != 0 || r&unix.LANDLOCK_ACCESS_FS_WRITE_FILE == 0 {
		t.Errorf("file: %x", r)
	}
	if r := (Rule{}).rights(true); r != readRights {
		t.Errorf("folder, read only: %x", r)
	}
	if handledRights&(fileRights|readRights|writeRights) != fileRights|readRights|writeRights {
		t.Error("a right is granted that is not handled")
	}
}
