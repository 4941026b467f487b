// SPDX-License-Identifier: Apache-2.0

package network

import (
	"errors"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
)

type fakeKernel struct {
	log   []string
	rules string
	fail  string
}

func (f *fakeKernel) do(what string) error {
	f.log = append(f.log, what)
	if f.fail == what {
		return errors.New("broken")
	}
	return nil
}
func (f *fakeKernel) Apply(r Ruleset) error        { f.rules = r.String(); return f.do("apply") }
func (f *fakeKernel) Up(*Plan) error               { return f.do("up") }
func (f *fakeKernel) Down(*Plan) error             { return f.do("down") }
func (f *fakeKernel) Open(t Tap) (*os.File, error) { return nil, f.do("open " + t.Name) }
func uplinkAddress() []netip.Prefix                { return []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24")} }
func (f *fakeKernel) wants(t *testing.T, w ...string) {
	t.Helper()
	if !slices.Equal(f.log, w) {
		t.Errorf("did %v, want %v", f.log, w)
	}
	f.log = nil
}

func TestManager(t *testing.T) {
	k := &fakeKernel{}
	m := NewManager(k)
	m.Keep(9, neighbour())
	if err := errors.Join(m.SetUplink("up0", nil), m.SetUplink("", nil)); err != nil || len(k.log) != 0 {
		t.Errorf("did something before the base: %v %v", k.log, err)
	}
	if err := errors.Join(m.Base(), m.Remove(9, neighbour())); err != nil {
		t.Error(err)
	}
	k.wants(t, "apply", "down", "apply")
	if err := m.Set(1, shop()); err == nil {
		t.Error("gateways without an uplink")
	}
	if err := errors.Join(m.Base(), m.SetUplink("eth0", uplinkAddress()), m.SetUplink("eth0", uplinkAddress()), m.Set(1, shop())); err != nil {
		t.Fatal(err)
	}
	k.wants(t, "apply", "apply", "apply", "up")
	if err := m.Set(2, shop()); err == nil || !strings.Contains(err.Error(), "overlaps") {
		t.Errorf("twice the same: %v", err)
	}
	k.wants(t)
	if err := m.Set(2, neighbour()); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(k.rules, "zb7") || !strings.Contains(k.rules, "zb0") {
		t.Error("rules lack a deployment")
	}
	if _, err := m.Open(2, "zt0"); err == nil {
		t.Error("opened a tap of another deployment")
	}
	if _, err := m.Open(2, "zt7"); err != nil {
		t.Error(err)
	}
	k.log = nil
	if err := m.Remove(1, shop()); err != nil {
		t.Fatal(err)
	}
	k.wants(t, "down", "apply")
	if strings.Contains(k.rules, "zb0") || !strings.Contains(k.rules, "zb7") {
		t.Error("wrong rules after removal")
	}
	k.fail = "up"
	if err := m.Set(3, shop()); err == nil {
		t.Error("a failure was hidden")
	}
	k.wants(t, "apply", "up", "down", "apply")
	if strings.Contains(k.rules, "zb0") {
		t.Error("half a deployment is left")
	}
}

func TestUplinkIsTriedAgain(t *testing.T) {
	k := &fakeKernel{fail: "apply"}
	m := NewManager(k)
	m.armed = true
	if err := m.SetUplink("eth0", uplinkAddress()); err == nil {
		t.Fatal("a failure was hidden")
	}
	if err := m.Conflict(1, shop()); err == nil || !strings.Contains(err.Error(), "no uplink") {
		t.Errorf("the uplink is believed: %v", err)
	}
	k.fail = ""
	if err := m.SetUplink("eth0", uplinkAddress()); err != nil {
		t.Fatal(err)
	}
	k.wants(t, "apply", "apply")
	if !strings.Contains(k.rules, "eth0") && m.uplink != "eth0" {
		t.Error("no uplink after the second try")
	}
}

func TestReserve(t *testing.T) {
	k := &fakeKernel{}
	m := NewManager(k)
	if err := errors.Join(m.Base(), m.SetUplink("eth0", uplinkAddress()), m.Reserve(1, shop()), m.Reserve(1, shop())); err != nil {
		t.Fatal(err)
	}
	for name, try := range map[string]func(int64, *Plan) error{"reserve": m.Reserve, "conflict": m.Conflict, "set": m.Set} {
		if err := try(2, shop()); err == nil || !strings.Contains(err.Error(), "overlaps") {
			t.Errorf("%s beside a reservation: %v", name, err)
		}
	}
	m.Free(1)
	m.Free(1)
	if err := m.Reserve(2, shop()); err != nil {
		t.Errorf("after it was freed: %v", err)
	}
}

func TestRemoveThatFailsKeepsTheRules(t *testing.T) {
	k := &fakeKernel{}
	m := NewManager(k)
	if err := errors.Join(m.Base(), m.SetUplink("eth0", uplinkAddress()), m.Set(1, shop())); err != nil {
		t.Fatal(err)
	}
	k.fail = "down"
	if err := m.Remove(1, shop()); err == nil {
		t.Error("a failure was hidden")
	}
	if err := m.Conflict(2, shop()); err == nil || !strings.Contains(k.rules, "zb0") {
		t.Errorf("a bridge that is left has no rules (%v)", err)
	}
	k.fail = ""
	if err := m.Remove(1, shop()); err != nil || strings.Contains(k.rules, "zb0") {
		t.Errorf("second try: %v", err)
	}
}
