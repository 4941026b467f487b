// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
)

// TestUpdateWithGuests: a node takes a new version of itself from the ledger while
// a deployment of two machines runs on it. The guests end in order; before the machine
// goes down, the ledger has the end of all that they were made of, and why; the
// new version is blessed, and the deployment runs on it under a new claim,
// since there is no other node that could have it.
func TestUpdateWithGuests(t *testing.T) {
	if os.Getenv("ZOS_BOOT") != "all" {
		t.Skip("SKIP TestUpdateWithGuests: with ZOS_BOOT=all (make test-boot)")
	}
	const next = "0.2"
	driver := anyDriver(t)
	// Two guests that boot at once, one level down, on a machine that is loaded.
	start, cancel := context.WithTimeout(context.Background(), 4*limit)
	defer cancel()
	w := newWorld(t)
	n := w.bootAs(driver, "updated", true, func(o *qemu.Options) {
		o.UEFI, o.Restart = &qemu.UEFI{Bus: "virtio", Write: true, Keep: w.path("vars.fd")}, true
	}, w.mirror())
	n.follows(t)
	d := w.deployment("chain")
	second := w.machine("second", "10.77.0.11")
	second.DependsOn = []string{"app"}
	d.Machines = append(d.Machines, second)
	id := w.register(d)
	before := w.running(start, id)
	n.serves(t)
	n.keyIs(t, "clear")

	out, _ := w.buildNode(driver, next, w.seed("next"))
	on := []string{"--ledger", w.ledger, "--root", w.root, "--key", w.path("release")}
	mustZos(t, append([]string{"release", filepath.Join(out, image.MediumUKI), "--store", w.path("store")}, on...)...)
	m := n.Console.Mark()
	mustZos(t, append([]string{"rollout", next, "--waves", "100"}, on...)...)

	// In order: who depends on another ends before it, and the machine after both.
	for _, line := range []string{
		`msg="update" |msg=update `, `msg=stopping .*machine=second.*update to ` + next, `msg=stopping .*machine=app.*update to ` + next,
		`agent asks for the end`,
	} {
		_, m = n.says(t, m, line)
	}
	// The agent has asked: what is not on the ledger now, no agent of this boot brings there.
	ended := w.closed(deadline(t), id, "released")
	if ended.Index != before.Index || ended.State != ledger.GrantReleased || ended.CloseReason != "update to "+next {
		t.Errorf("the ledger has %+v\n%s", ended, w.story())
	}
	var undone []string
	for _, r := range w.client.State().Records(before.Index)[len(everyPhase):] {
		if undone = append(undone, r.Record.Phase); r.Record.Result != "undone" {
			t.Errorf("%s: %s %s", r.Record.Phase, r.Record.Result, r.Record.Error)
		}
	}
	if !slices.Equal(undone, []string{"start", "volumes", "network", "fetch-content"}) {
		t.Errorf("undone: %v", undone)
	}
	_, m = n.says(t, m, `the machine ends now`)
	if body, err := page(n.gateway, "/"); err == nil {
		t.Errorf("the machine is off, and its gateway says %q", body)
	}

	_, m = n.says(t, m, `this image is on trial.*version=`+next)
	after := w.running(start, id)
	if after.Node != before.Node || after.Index <= before.Index {
		t.Errorf("claim %+v, then %+v", before, after)
	}
	n.serves(t)
	was, is := w.ran(before).Digests, w.ran(after).Digests
	if was["plan"] != is["plan"] || was["guestKey/app"] == is["guestKey/app"] || is["guestKey/app"] == "" {
		t.Errorf("the plan and the guests' keys were %v, and are %v", was, is)
	}
	n.says(t, m, `this image is blessed.*version=`+next)
	w.until(deadline(t), "the node's word that it runs "+next, func(s *ledger.State) bool {
		all := s.Updates()
		u := all[len(all)-1]
		return u.Result == ledger.UpdateBlessed && u.Running == next
	})
	s := w.client.State()
	if len(s.Claims(id)) != 2 || s.Status(s.Deployment(id)) != ledger.Running || len(s.Incidents()) != 0 || len(n.guests(t)) != 2 {
		t.Errorf("%d guests run\n%s", len(n.guests(t)), w.story())
	}
	if out := mustZos(t, "history", "chain", "--ledger", w.ledger, "--root", w.root); !strings.Contains(out, "update to "+next) {
		t.Errorf("history does not say why:\n%s", out)
	}
	mustZos(t, "audit", "--ledger", w.path("ledger"), "--root", w.root, "chain")
}

// ran is the newest record of a claim that says that its deployment runs.
func (w *world) ran(g *ledger.Grant) *ledger.Record {
	w.t.Helper()
	for _, r := range slices.Backward(w.client.State().Records(g.Index)) {
		if r.Record.Phase == "running" {
			return r.Record
		}
	}
	w.t.Fatalf("claim %d never ran\n%s", g.Index, w.story())
	return nil
}

// serves waits for the page of the deployment's app: a gateway that is loaded answers late.
func (n *node) serves(t *testing.T) {
	t.Helper()
	for ctx := deadline(t); ; {
		body, err := page(n.gateway, "/")
		if err == nil && strings.Contains(body, `"host":"app"`) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("page: %q, %v", body, err)
		case <-time.After(time.Second):
		}
	}
}
