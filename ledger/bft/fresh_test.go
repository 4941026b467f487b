// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestIdleLogIsSignedAnew: of one validator and of four. The tree stays what it is,
// readers see by the times of its signatures that nothing is held back, and entries
// go on meanwhile.
func TestIdleLogIsSignedAnew(t *testing.T) {
	for _, n := range []int{1, 4} {
		t.Run(map[int]string{1: "one", 4: "four"}[n], func(t *testing.T) {
			t.Parallel()
			g := newGroup(t, n)
			var engines []*Engine
			for _, dir := range g.dirs {
				engines = append(engines, open(t, dir, Options{anew: time.Nanosecond}))
			}
			if n > 1 {
				rotation := g.rotation(engines[0].State(), 0, 1, 2, 3)
				waitFor(t, "the rotation", func() bool {
					_, err := engines[0].Submit(t.Context(), rotation)
					return err == nil
				})
			}
			must(t, engines[0], g.log.Register("d", 1, nil))
			for i, e := range engines {
				waitFor(t, "everybody to have the entry", func() bool {
					e.app.mu.RLock()
					defer e.app.mu.RUnlock()
					return e.app.durable == e.app.state.Size() && e.app.state.DeploymentByName("d") != nil
				})
				read := func() (size, at int64) {
					t.Helper()
					b, err := os.ReadFile(filepath.Join(string(LogDir(g.dirs[i])), "checkpoint"))
					if err != nil {
						t.Fatal(err)
					}
					cp, err := e.State().Root().Checkpoints().Open(b)
					if err != nil {
						t.Fatal(err)
					}
					return cp.N, cp.FreshSec
				}
				size, first := read()
				waitFor(t, "newer signatures of a quorum", func() bool {
					now, at := read()
					if now != size {
						t.Fatalf("the log has %d entries, had %d", now, size)
					}
					return at > first+1
				})
			}
			must(t, engines[0], g.log.Register("e", 1, nil))
		})
	}
}
