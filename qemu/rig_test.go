// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func soon(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func TestConsoleExpect(t *testing.T) {
	c := newConsole()
	r, w := io.Pipe()
	var kept bytes.Buffer
	go c.copyFrom(r, &kept)
	go func() {
		for _, s := range []string{"first li", "ne\r\n\x1b[2J\x1b[01;01Hsecond 42\r\n", "third\nno end"} {
			if _, err := io.WriteString(w, s); err != nil {
				t.Error(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	}()
	line, _, m, err := c.Expect(soon(t), 0, regexp.MustCompile(`^first line$`))
	if err != nil || line.Text != "first line" {
		t.Fatalf("%q, %v", line.Text, err)
	}
	_, groups, m, err := c.Expect(soon(t), m, regexp.MustCompile(`^second (\d+)$`))
	if err != nil || !slices.Equal(groups, []string{"second 42", "42"}) {
		t.Fatalf("%v, %v", groups, err)
	}
	// What stands before the mark is not seen again, and the end is told.
	if _, _, _, err = c.Expect(soon(t), m, regexp.MustCompile(`second`)); !errors.Is(err, ErrConsoleEnded) || !strings.Contains(err.Error(), "no end") {
		t.Errorf("%v", err)
	}
	if len(c.Lines(0)) != 3 || c.Mark() != 3 {
		t.Errorf("%d lines", len(c.Lines(0)))
	}
}

// TestPlain: what goes to a log file cannot steer the terminal of its reader.
func TestPlain(t *testing.T) {
	var kept bytes.Buffer
	p := &plainWriter{w: &kept}
	for _, s := range []string{"\x1b[2J\x1b[01;01H\x1b[=3h\x1b[0m\x1b[37m\x1b[40mBdsDxe\x1b", "[0m: loading\r\n", "\x1b]0;title\x07a\tb\x1b(B\x1b=\a\x9b\xc2\x9b2J\nno \x1bcend"} {
		if _, err := io.WriteString(p, s); err != nil {
			t.Fatal(err)
		}
	}
	p.flush()
	if want := "BdsDxe: loading\na\tb\ufffd2J\nno end\n"; kept.String() != want {
		t.Errorf("%q, want %q", kept.String(), want)
	}
}

func TestConsoleDeadline(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, _, _, err := newConsole().Expect(ctx, 0, regexp.MustCompile("x")); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// TestEmulatorFault: an ordinary oops of the node's kernel, or of a module of
// it, is a failure of ours, and so is everything under KVM.
func TestEmulatorFault(t *testing.T) {
	for _, c := range []struct {
		accel, console string
		want           bool
	}{
		{"tcg", "[    3.7] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n", true},
		{"tcg", "[    3.7][  T112] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n[    3.8] Kernel panic - not syncing: Fatal exception in interrupt\n", true},
		{"kvm", "[    3.7] Oops: int3: 0000 [#1] PREEMPT SMP NOPTI\n", false},
		{"tcg", "[    0.8] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.\n", true},
		{"kvm", "[    0.8] Kernel panic - not syncing: IO-APIC + timer doesn't work!  Boot with apic=debug and send a report.\n", false},
		{"tcg", "[    9.1] BUG: kernel NULL pointer dereference, address: 0000000000000010\n[    9.1] Oops: Oops: 0002 [#1] PREEMPT SMP NOPTI\n" +
			"[    9.1] RIP: 0010:erofs_read_superblock+0x1f/0x300 [erofs]\n[    9.2] Kernel panic - not syncing: Fatal exception\n", false},
		{"tcg", "[    3.7] Kernel panic - not syncing: Attempted to kill init!\n", false},
		{"tcg", "time=x level=INFO msg=guest machine=app line=\"[    3.7] Oops: int3: 0000 [#1]\"\n", false},
		{"tcg", "panic: runtime error: invalid memory address or nil pointer dereference\n", false},
	} {
		m := &Machine{Console: newConsole(), accel: c.accel}
		m.Console.add([]byte(c.console))
		if got := m.EmulatorFault(); got != c.want {
			t.Errorf("%s, %q: %v", c.accel, c.console, got)
		}
		if got := IsEmulatorFault(c.accel, c.console); got != c.want {
			t.Errorf("%s, whole text %q: %v", c.accel, c.console, got)
		}
	}
}

// TestGuestFault: only a guest's kernel that died while it patched itself, as
// the agent tells it.
func TestGuestFault(t *testing.T) {
	const from = `time=2026-11-25T16:19:23.6Z level=INFO msg="last words" part=deploy deployment=shop machine=app from=`
	for _, c := range []struct {
		accel, console string
		want           bool
	}{
		{"tcg", from + `console line="[    0.315356] RIP: 0010:text_poke_early+0x68/0xa0"` + "\n", true},
		{"kvm", from + `console line="[    0.315356] RIP: 0010:text_poke_early+0x68/0xa0"` + "\n", false},
		{"tcg", from + `console line="[    7.315356] RIP: 0010:text_poke_early+0x68/0xa0"` + "\n", false},
		{"tcg", from + `process line="[    0.315356] RIP: 0010:text_poke_early+0x68/0xa0"` + "\n", false},
		{"tcg", from + `console line="[    0.915356] RIP: 0010:verity_map+0x68/0xa0"` + "\n", false},
		{"tcg", "[    0.315356] RIP: 0010:text_poke_early+0x68/0xa0\n", false},
	} {
		m := &Machine{Console: newConsole(), accel: c.accel}
		m.Console.add([]byte(c.console))
		if got := m.GuestFault(); got != c.want {
			t.Errorf("%s, %q: %v", c.accel, c.console, got)
		}
	}
}

// TestProbe: whatever this machine has, the answer is one of the two with a
// reason, and tcg where the binary is missing.
func TestProbe(t *testing.T) {
	if a := Probe(soon(t), filepath.Join(t.TempDir(), "no-qemu")); a.Name != "tcg" || a.Why == "" || len(a.Args) == 0 {
		t.Errorf("%+v", a)
	}
	a := Probe(soon(t), Binary)
	if (a.Name != "tcg" && a.Name != "kvm") || a.Why == "" {
		t.Errorf("%+v", a)
	}
	t.Logf("%s: %s", a.Name, a.Why)
}

func TestQuoted(t *testing.T) {
	if got := quoted("/a,b/c"); got != "/a,,b/c" {
		t.Error(got)
	}
}

// TestMachine starts a machine that cannot boot: its words are kept, and
// nothing stays behind.
func TestMachine(t *testing.T) {
	if _, err := exec.LookPath(Binary); err != nil {
		t.Skipf("SKIP rig: no %s", Binary)
	}
	o := Options{
		Accel: Accel{Name: "tcg", Args: tcgArgs}, MemoryMiB: 64, CPUs: 1, Faults: true, SMBIOS: []string{"zos.seed=e30="},
		// A "kernel" that is none: QEMU says so and ends.
		Kernel: "/dev/null", Initrd: "/dev/null", Log: filepath.Join(t.TempDir(), "console"),
	}
	m, err := Start(o)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Wait(soon(t)); err == nil {
		t.Error("QEMU booted nothing at all and said that it went well")
	}
	if err := m.Monitor(soon(t), "quit"); err == nil {
		t.Error("the monitor of a machine that is gone answers")
	}
	if err := errors.Join(m.Close(), m.Close()); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(m.dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%s stays behind: %v", m.dir, err)
	}
	if b, err := os.ReadFile(o.Log); err != nil || len(b) == 0 {
		t.Errorf("what QEMU said is not in the log: %q, %v", b, err)
	}
	if _, err := Boot(soon(t), o, Up); !errors.Is(err, ErrConsoleEnded) {
		t.Errorf("Boot: %v", err)
	}
}

// TestClose kills a machine that runs, by its id, and only once.
func TestClose(t *testing.T) {
	if _, err := exec.LookPath(Binary); err != nil {
		t.Skipf("SKIP rig: no %s", Binary)
	}
	disk := filepath.Join(t.TempDir(), "a,b.img") // an empty disk: the firmware waits for ever
	if err := os.WriteFile(disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	m, err := Start(Options{Accel: Accel{Name: "tcg", Args: tcgArgs}, MemoryMiB: 64, CPUs: 1, Disk: disk})
	if err != nil {
		t.Skipf("SKIP rig: %v", err)
	}
	if err := m.Monitor(soon(t), "query-status"); err != nil {
		t.Errorf("monitor: %v", err)
	}
	if err := m.Fault(soon(t), map[string]any{"do": "stat"}, nil); err == nil {
		t.Error("a machine without a fault channel took a fault")
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
	if err := syscall.Kill(m.PID(), 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("QEMU runs on: %v", err)
	}
	select {
	case <-m.Done():
	default:
		t.Error("Done is not closed")
	}
}

// TestHung: a machine whose processors stand still is started once more, and
// then it is told what was not heard. One that is slow behind its kernel's first
// word is waited for.
func TestHung(t *testing.T) {
	still := Options{
		Accel: Accel{Name: "tcg", Args: tcgArgs}, MemoryMiB: 64, CPUs: 1, Patience: 500 * time.Millisecond,
		Disk: filepath.Join(t.TempDir(), "disk"), Args: []string{"-S"}, // processors that do not run
	}
	if err := os.WriteFile(still.Disk, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Run("twice", func(t *testing.T) {
		_, none := exec.LookPath(Binary)
		if _, _, err := Firmware("amd64", false); errors.Join(none, err) != nil {
			t.Skipf("SKIP rig: %v", errors.Join(none, err))
		}
		if _, err := Boot(soon(t), still, Up); !errors.Is(err, ErrHung) {
			t.Errorf("Boot: %v", err)
		}
	})
	idle := func() time.Duration { return time.Second / 10 }
	vain := func() time.Duration { return time.Hour }
	over := func() context.Context {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		t.Cleanup(cancel)
		return ctx
	}
	long := func() context.Context { return soon(t) }
	for _, c := range []struct {
		said string
		used func() time.Duration
		ctx  func() context.Context
		want error
	}{
		{"BdsDxe: starting Boot0001\n", idle, long, ErrHung},
		{"BdsDxe: starting Boot0001\n", vain, long, ErrHung},
		{"[    0.1] Booting\n", idle, over, context.DeadlineExceeded},
		{"time=x level=INFO msg=drivers\n", vain, over, context.DeadlineExceeded},
		{"x msg=\"program started\"\n", idle, long, nil},
	} {
		m := &Machine{Console: newConsole(), accel: "tcg"}
		m.Console.add([]byte(c.said))
		o := still
		o.Patience = 900 * time.Millisecond
		if err := m.comesUp(c.ctx(), o, Up, c.used); !errors.Is(err, c.want) || errors.Is(err, ErrHung) != (c.want == ErrHung) {
			t.Errorf("%q: %v, want %v", c.said, err, c.want)
		}
	}
}

// TestHangs: an emulator that has little of a processor, since others work here,
// is waited for longer than one that stands still or works in vain.
func TestHangs(t *testing.T) {
	const limit = time.Millisecond
	for each, want := range map[time.Duration]int{0: 11, limit / 2: 2, limit / 25: 25, limit / 500: 50} {
		looks := 0
		if !hangs(soon(t), limit, func() time.Duration { looks++; return time.Duration(looks) * each }) || looks != want {
			t.Errorf("%s by each look: given up after %d, want %d", each, looks, want)
		}
	}
}

func TestEventLine(t *testing.T) {
	for in, want := range map[string]string{
		`{"timestamp": {"seconds": 1, "microseconds": 2}, "event": "SHUTDOWN", "data": {"guest": true, "reason": "guest-reset"}}`: "rig: QEMU says SHUTDOWN, reason guest-reset",
		`{"event": "WATCHDOG", "data": {"action": "reset"}}`:                                                                      "rig: QEMU says WATCHDOG, action reset",
		`{"event": "RTC_CHANGE", "data": {"offset": 1}}`:                                                                          "",
		`{"event"`: `rig: QEMU says what is no JSON: "{\"event\""`,
	} {
		if got := eventLine([]byte(in)); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
}
