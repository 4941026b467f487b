// SPDX-License-Identifier: Apache-2.0

package update

import (
	"context"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/ledger"
)

// TestOneAfterTheOther: X, Y and Z, of different lengths; each was tried,
// blessed, and is on the ledger; what ran before stays beside it.
func TestOneAfterTheOther(t *testing.T) {
	r := newRig(t)
	if got := r.settle(); got != "1.0" {
		t.Fatal(got)
	}
	for _, c := range []struct {
		version string
		kernel  int
		slots   []string
	}{
		{"1.1", 90_000, []string{"zos-1.0.efi", "zos-1.1.efi"}}, {"1.2", 30_000, []string{"zos-1.1.efi", "zos-1.2.efi"}}, {"1.10", 60_123, []string{"zos-1.10.efi", "zos-1.2.efi"}},
	} {
		id := r.rollout(r.release(c.version, c.kernel), c.version, nil)
		if got := r.settle(); got != c.version {
			t.Fatalf("runs %s, want %s; started %v", got, c.version, r.starts)
		}
		u := r.log.State().Updated(id, "edge")
		if u == nil || u.Result != ledger.UpdateBlessed || u.Running != c.version {
			t.Errorf("the ledger has %+v", u)
		}
		if got := r.slots(); !slices.Equal(got, c.slots) {
			t.Errorf("there are %v, want %v", got, c.slots)
		}
		for _, u := range r.log.State().Updates() {
			if u.Rollout == id && u.Result == ledger.UpdateTrying {
				id = -1
			}
		}
		if id != -1 {
			t.Error("the ledger did not hear that it was to be tried")
		}
	}
}

// TestBroken: a version that is broken goes back to the one before, which says
// so; it is not tried again before a new rollout, and does not hinder the next.
func TestBroken(t *testing.T) {
	for how, says := range map[string]string{
		"kernel": "started 3 times and was not found healthy; its agent never came up",
		"init":   "its agent never came up: kernel, init or agent",
		"agent":  "started 3 times and was not found healthy; its agent came up and ended",
		"locked": "started once and was not found healthy; the last that its agent noted: " + errLocked.Error(),
		"health": "not healthy after 10m0s: the ledger is not followed",
		// Well for 25 s at a time is not well.
		"flickers": "not healthy after 10m0s: the ledger is not followed",
	} {
		t.Run(how, func(t *testing.T) {
			r := newRig(t)
			y := r.release("1.1", 90_000)
			first := r.rollout(y, "1.1", nil)
			r.broken["1.1"] = how
			if got := r.settle(); got != "1.0" {
				t.Fatalf("runs %s; started %v", got, r.starts)
			}
			u := r.log.State().Updated(first, "edge")
			if u == nil || u.Result != ledger.UpdateRolledBack || u.Running != "1.0" || !strings.Contains(u.Reason, says) {
				t.Errorf("the ledger has %+v, want a reason with %q", u, says)
			}
			tried := len(r.starts)
			if r.settle(); len(r.starts) != tried+1 {
				t.Errorf("it was tried again: %v", r.starts)
			}
			// Also not by a node whose word never reached the ledger.
			if m := r.memory(); !slices.Contains(m.Tried, first) || !m.Told {
				t.Errorf("it remembers %+v", m)
			}
			r.broken["1.1"] = ""
			r.rollout(y, "1.1", func(p *ledger.Rollout) { p.MaxFailed = 3 })
			if got := r.settle(); got != "1.1" {
				t.Errorf("runs %s after a new rollout; started %v", got, r.starts)
			}
			r.rollout(r.release("1.2", 40_000), "1.2", nil)
			if got := r.settle(); got != "1.2" {
				t.Errorf("runs %s; started %v", got, r.starts)
			}
		})
	}
}

// TestAnotherDiskIsStarted: a firmware that never starts the disk with the new
// image does not have the machine start for ever; the ledger hears why, and a
// firmware that comes back to it in time has the trial take place.
func TestAnotherDiskIsStarted(t *testing.T) {
	r := newRig(t)
	y := r.release("1.1", 90_000)
	first := r.rollout(y, "1.1", nil)
	r.elsewhere = "1.0"
	if got := r.settle(); got != "1.0" || len(r.starts) != 1+tries {
		t.Fatalf("runs %s; started %v", got, r.starts)
	}
	u := r.log.State().Updated(first, "edge")
	if u == nil || u.Result != ledger.UpdateRolledBack || u.Running != "1.0" || !strings.Contains(u.Reason, "its trial never began: the machine was started again 3 times") {
		t.Errorf("the ledger has %+v", u)
	}
	if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi"}) {
		t.Errorf("there are %v", got)
	}
	started := len(r.starts)
	if r.settle(); len(r.starts) != started+1 {
		t.Errorf("it was tried again: %v", r.starts)
	}

	r.rollout(y, "1.1", func(p *ledger.Rollout) { p.MaxFailed = 3 })
	for range tries { // the one that puts it in place, and two that spend a try
		if !r.start() {
			t.Fatalf("it gave up early; started %v", r.starts)
		}
	}
	if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi", "zos-1.1+1.efi"}) {
		t.Errorf("there are %v", got)
	}
	r.elsewhere = ""
	if got := r.settle(); got != "1.1" {
		t.Errorf("runs %s; started %v", got, r.starts)
	}
}

func (r *rig) memory() memory {
	r.t.Helper()
	var m memory
	u := r.updater("1.0", func() {})
	if _, err := u.resume(); err != nil {
		r.t.Fatal(err)
	}
	m = u.mem
	return m
}

// TestNotPutInPlace: what cannot be put in place changes nothing on the disk,
// and is said; what may work later is tried later.
func TestNotPutInPlace(t *testing.T) {
	for name, c := range map[string]struct {
		edit   func(*rig)
		reason string // "": tried again later
	}{
		"no room":            {func(r *rig) { r.release("1.1", 40_000_000) }, "no room on the boot partition"},
		"of another board":   {func(r *rig) { r.wrong("1.1", "for "+board+"x") }, "released is 1.1 for " + board},
		"of another version": {func(r *rig) { r.wrong("1.1", "version") }, "version 9.9"},
		"no UKI":             {func(r *rig) { r.wrong("1.1", "junk") }, "no UKI"},
		"not signed":         {func(r *rig) { r.release("1.1", 40_000); r.secure = true }, "not signed"},
		"no mirror answers":  {func(r *rig) { r.release("1.1", 40_000); r.fetch = errors.New("connection refused") }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			c.edit(r)
			id := r.rollout(r.log.State().Releases()[0].ID, "1.1", nil)
			if got := r.settle(); got != "1.0" {
				t.Fatal(got)
			}
			if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi"}) {
				t.Errorf("there are %v", got)
			}
			if (r.asked == 0) != (name == "no room") {
				t.Errorf("asked for the image %d times", r.asked)
			}
			u := r.log.State().Updated(id, "edge")
			if c.reason == "" {
				if u != nil {
					t.Errorf("the ledger has %+v", u)
				}
				r.fetch = nil
				if got := r.settle(); got != "1.1" {
					t.Errorf("runs %s once a mirror answers", got)
				}
				return
			}
			if u == nil || u.Result != ledger.UpdateFailed || !strings.Contains(u.Reason, c.reason) {
				t.Errorf("the ledger has %+v", u)
			}
		})
	}
}

// TestNoRoomDeletesNothing: where an image has no room beside the one that
// runs, also the one to fall back to stays.
func TestNoRoomDeletesNothing(t *testing.T) {
	r := newRig(t)
	r.rollout(r.release("1.1", 90_000), "1.1", nil)
	if got := r.settle(); got != "1.1" {
		t.Fatal(got)
	}
	id := r.rollout(r.release("1.2", 40_000_000), "1.2", nil)
	if got := r.settle(); got != "1.1" {
		t.Fatal(got)
	}
	if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi", "zos-1.1.efi"}) {
		t.Errorf("there are %v", got)
	}
	if u := r.log.State().Updated(id, "edge"); u == nil || !strings.Contains(u.Reason, "no room on the boot partition") {
		t.Errorf("the ledger has %+v", u)
	}
	// Nor when it is found out only with the image at hand.
	v, err := fat.Open(r.disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := install(v, "1.1", image{Version: "1.2", Size: 40_000_000}, memory{}); !errors.Is(err, ErrNoRoom) {
		t.Errorf("install says %v", err)
	}
	if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi", "zos-1.1.efi"}) {
		t.Errorf("then there are %v", got)
	}
}

// TestFloor: what is below the floor is not kept to fall back to, once what
// runs is not; and a node below it takes no work.
func TestFloor(t *testing.T) {
	r := newRig(t)
	r.rollout(r.release("1.1", 40_000), "1.1", nil)
	r.settle()
	y := r.log.State().Releases()[0].ID
	r.rollout(y, "1.1", func(p *ledger.Rollout) { p.Floor = "1.1" })
	r.settle()
	if got := r.slots(); !slices.Equal(got, []string{"zos-1.1.efi"}) {
		t.Errorf("there are %v", got)
	}
	s := r.log.State()
	if why := Below(s, "1.0"); !strings.Contains(why, "floor is 1.1") {
		t.Errorf("a node below the floor: %q", why)
	}
	if why := Below(s, "1.1"); why != "" {
		t.Error(why)
	}
	// Nothing is left to fall back to, and a trial still can: what runs is
	// blessed.
	r.broken["1.2"] = "kernel"
	r.rollout(r.release("1.2", 40_000), "1.2", nil)
	if got := r.settle(); got != "1.1" {
		t.Error(got)
	}
}

func TestSlotNames(t *testing.T) {
	for name, want := range map[string]slot{
		"zos-1.4.0.efi": {"1.4.0", false, 0, 0}, "zos-0.1+3.efi": {"0.1", true, 3, 0}, "ZOS-0.1+2-1.EFI": {"0.1", true, 2, 1}, "zos-10.0+0-3.efi": {"10.0", true, 0, 3},
	} {
		s, ok := parseSlot(name)
		if !ok || s != want {
			t.Errorf("%s is %+v, %v", name, s, ok)
		}
		if !strings.EqualFold(s.name(), name) {
			t.Errorf("%s is written %s", name, s.name())
		}
	}
	for _, name := range []string{"zos-1.0", "zos-.efi", "zos-1.efi", "zos-1.0+.efi", "zos-1.0+3-.efi", "zos-next.part", "windows.efi", "zos-01.2.efi", "zos-1.0+3.efi.bak"} {
		if s, ok := parseSlot(name); ok {
			t.Errorf("%s is %+v", name, s)
		}
	}
}

// TestRestartWaits: the ledger goes away while an image is written, or the agent
// ends right behind that. Either way the machine does not go down before the node
// lacks nothing: what runs on it could be taken over by nobody, or would not end in
// order.
func TestRestartWaits(t *testing.T) {
	r := newRig(t)
	r.rollout(r.release("1.1", 40_000), "1.1", nil)
	asked, restarts := 0, 0
	start := func(lacks int) (*Updater, context.Context) {
		ctx, cancel := context.WithCancel(t.Context())
		u := r.updater("1.0", func() {
			if restarts++; lacks > 0 {
				t.Error("the machine went down although the ledger was away")
			}
			cancel()
		})
		away := false
		u.cfg.Drain = func(context.Context) error { away = true; return errors.New("the ledger is away") }
		u.cfg.Healthy = func() error {
			if asked++; away && lacks > 0 {
				lacks--
				return errors.New("the ledger is not followed")
			}
			return nil
		}
		return u, ctx
	}
	u, ctx := start(5)
	if err := u.look(ctx); err != nil || restarts != 1 || asked != 7 { // before it is taken, five times, and once it is back
		t.Fatalf("%v, %d restarts, asked %d times", err, restarts, asked)
	}
	// The machine is not off yet, and there is a new agent.
	asked = 0
	u, ctx = start(3)
	if err := u.cfg.Drain(ctx); err == nil {
		t.Fatal("the ledger is there")
	}
	if err := u.begin(ctx); err != nil || restarts != 2 || asked != 4 {
		t.Errorf("%v, %d restarts, asked %d times", err, restarts, asked)
	}
	// One that ends meanwhile does not take the machine along.
	u, ctx = start(1 << 20)
	over, cancel := context.WithCancel(ctx)
	healthy := u.cfg.Healthy
	u.cfg.Healthy = func() error { cancel(); return errors.Join(healthy(), errors.New("the ledger is not followed")) }
	if err := u.begin(over); !errors.Is(err, context.Canceled) || restarts != 2 {
		t.Errorf("%v, %d restarts", err, restarts)
	}
}
