// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestFileChangedBehindItsCheck alters what a running machine was started from.
// Its guest may never read that again, but the scrub does: the guest is ended,
// the file is in quarantine, and the incident is on the ledger.
func TestFileChangedBehindItsCheck(t *testing.T) {
	for name, path := range map[string]func(*content.Store) string{
		"disk":   func(s *content.Store) string { return s.ImagePath(ledgertest.Digest("image")) },
		"kernel": func(s *content.Store) string { return s.BlobPath(ledgertest.Digest("kernel")) },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t)
			d := b.register(nil)
			l := New(b.world, d, -1, 0)
			var mine bool
			b.found = func(f content.Finding) error {
				var err error
				mine, err = l.Condemned(f)
				return err
			}
			done := run(l)
			g := b.untilRunning(d)
			if err := b.world.Content.ScrubOnce(context.Background()); err != nil || b.driver.Running() != 1 {
				t.Fatalf("while all is right: %v, %d VMs", err, b.driver.Running())
			}
			file := path(b.world.Content)
			if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, []byte("other"), 0o600)); err != nil {
				t.Fatal(err)
			}
			if err := b.world.Content.ScrubOnce(context.Background()); err != nil || !mine {
				t.Fatalf("the scrub: %v, told %t", err, mine)
			}
			if err := b.wait(done); err != nil {
				t.Fatal(err)
			}
			b.drained()
			b.clean()
			b.until("closed", func(s *ledger.State) bool { return s.Claim(g.Index).Closed() })
			if c := b.ledger.State().Claim(g.Index); c.CloseResult != "failed" || !strings.Contains(c.CloseReason, filepath.Base(file)) {
				t.Errorf("closed as %s: %s", c.CloseResult, c.CloseReason)
			}
			b.equal("incidents", b.incidents(), []string{IncidentContent + " web"})
			if i := b.ledger.State().Incidents()[0].Incident; i.Claim != g.Index || !strings.Contains(i.Detail, "quarantine") {
				t.Errorf("incident %+v", i)
			}
			if left, err := filepath.Glob(filepath.Join(b.dir, "store/quarantine/*-"+filepath.Base(file))); err != nil || len(left) != 1 {
				t.Errorf("in quarantine: %v, %v", left, err)
			}
		})
	}
}
