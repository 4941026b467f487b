// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestStateFileCannotBeKept: nothing newer is believed than could be kept, and
// it is not called the ledger's fault; when there is room again it goes on.
func TestStateFileCannotBeKept(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("shop", 1, nil))
	dir := filepath.Join(t.TempDir(), "state")
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, StateFile: filepath.Join(dir, "state.json")})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrState) || c.Checkpoint().N != 0 {
		t.Fatalf("Sync says %v at %d entries, want ErrState at none", err, c.Checkpoint().N)
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); err != nil || c.Checkpoint().N == 0 {
		t.Fatalf("there is room again: %v at %d entries", err, c.Checkpoint().N)
	}
}
