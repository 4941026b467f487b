// SPDX-License-Identifier: Apache-2.0

package record

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/clock/clocktest"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/ledger"
)

// TestDamagedFilesDoNotStopTheNode: the queue stands on a disk, and an agent that
// ended on a damaged file of it would end at each boot. What is damaged is put
// aside and told; the rest goes on.
func TestDamagedFilesDoNotStopTheNode(t *testing.T) {
	for _, c := range []struct {
		name    string
		damage  func(dir string) error
		records int // that come onto the ledger, of three
		tells   int
	}{
		{"nothing", func(string) error { return nil }, 3, 0},
		{"half a file of the next", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, ".000000000003.entry123"), []byte("{"), 0o600)
		}, 3, 0},
		{"the chain", func(dir string) error { return os.WriteFile(filepath.Join(dir, "chain-3"), []byte("{\x00"), 0o600) }, 3, 1},
		{"the chain is gone", func(dir string) error { return os.Remove(filepath.Join(dir, "chain-3")) }, 3, 0},
		{"the last record", func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "000000000002.entry"), make([]byte, 900), 0o600)
		}, 2, 1},
		{"no number", func(dir string) error { return os.WriteFile(filepath.Join(dir, "chain-x"), nil, 0o600) }, 3, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, clk, dir := &fakeLedger{}, clocktest.New(time.Unix(0, 0)), t.TempDir()
			q := open(t, dir, f, clk)
			for _, p := range []phase.Name{phase.Detect, phase.Match, phase.Plan} {
				if err := q.Record(3, report(p)); err != nil {
					t.Fatal(err)
				}
			}
			if err := c.damage(dir); err != nil {
				t.Fatal(err)
			}
			open(t, dir, f, clk) // and the boot after the next
			q = open(t, dir, f, clk)
			go q.Run(t.Context())
			for q.Waiting() > 0 {
				clk.Await(1)
				clk.Advance(lastRetry)
			}
			records, told := 0, 0
			for _, raw := range f.entries {
				e, err := ledger.Decode(raw)
				if err != nil {
					t.Fatal(err)
				}
				switch p := e.Payload.(type) {
				case *ledger.Record:
					records++
				case *ledger.Incident:
					if p.Kind == IncidentDamaged {
						told++
					}
				}
			}
			if records != c.records || told != c.tells {
				t.Errorf("%d records and %d incidents, want %d and %d", records, told, c.records, c.tells)
			}
			if _, err := os.Stat(filepath.Join(dir, ".000000000003.entry123")); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("half a file is left: %v", err)
			}
		})
	}
}
