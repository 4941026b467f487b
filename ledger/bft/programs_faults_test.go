// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// edit is one change of a file of the source.
type edit struct{ file, old, new string }

// program builds this test's program, which is also the server, from a source
// that differs: what another release is. The source itself stays as it is.
func program(t *testing.T, edits ...edit) (exe string) {
	t.Helper()
	dir := t.TempDir()
	replace := map[string]string{}
	for _, e := range edits {
		path, err := filepath.Abs(e.file)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.Count(b, []byte(e.old)) != 1 {
			t.Fatalf("%s has %q %d times, want once", e.file, e.old, bytes.Count(b, []byte(e.old)))
		}
		other := filepath.Join(dir, filepath.Base(path))
		if err := os.WriteFile(other, bytes.Replace(b, []byte(e.old), []byte(e.new), 1), 0o600); err != nil {
			t.Fatal(err)
		}
		replace[path] = other
	}
	overlay, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	exe = filepath.Join(dir, "other.test")
	if out, err := exec.Command("go", "test", "-c", "-tags", "faults", "-overlay", list, "-o", exe, ".").CombinedOutput(); err != nil {
		t.Fatalf("build another program: %v\n%s", err, out)
	}
	return exe
}

// neverStarts runs the server on a folder that it cannot go on from, and returns
// what it says.
func neverStarts(t *testing.T, dir string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), "ZOS_TEST_LEDGER="+dir)
	out, err := cmd.CombinedOutput()
	if err == nil || ctx.Err() != nil {
		t.Fatalf("it started: %v, %s", err, out)
	}
	return string(out)
}

// newest is the state that the first three have.
func newest(t *testing.T, c *cluster) *ledger.State {
	t.Helper()
	cl := quick(t, c.dirs[0], c.srv[0].url, c.srv[1].url)
	waitFor(t, "the newest block", func() bool { return cl.Sync(t.Context()) == nil })
	return cl.State()
}

// otherRules has one of four run a program that decides otherwise, which is what
// a release that changes Apply does when it is mixed with the one before.
func (c *cluster) otherRules(run scenario) {
	run("one of four has other rules", func(t *testing.T) (string, string) {
		exe := program(t, edit{
			"../apply_deployment.go", "	name, version := d.Metadata.Name, d.Metadata.Version\n",
			"	name, version := d.Metadata.Name, d.Metadata.Version\n	if name == \"odd\" {\n		return nil, refuse(\"payload.metadata.name\", \"is odd\")\n	}\n",
		})
		odd := c.srv[3]
		c.put(3, c.entry())
		saved, _ := backup(t, c.dirs[3])
		odd.kill(t)
		odd = startExe(outer{t, c}, exe, c.dirs[3], "", "", "odd")
		odd.odd = true // it does not outlive this row
		c.srv[3] = odd
		c.put(3, c.entry()) // as long as the rules say the same, nobody sees it
		entry := c.log.Register("odd", 1, nil)
		c.put(0, entry)
		for range 3 {
			c.put(0, c.entry())
		}
		odd.wait()
		for _, line := range []string{"CONSENSUS FAILURE", "AppHash", "consensus has ended"} {
			if !strings.Contains(odd.err.String(), line) {
				t.Errorf("it does not say %q: %s", line, odd.err)
			}
		}
		// What it published is the log as far as it went along.
		cl := quick(t, c.dirs[0], string(LogDir(c.dirs[3])))
		if err := cl.Sync(t.Context()); err != nil {
			t.Errorf("its files: %v", err)
		}
		// The right program alone does not bring it back: CometBFT has what the other
		// one came to. A backup from before does.
		if said := neverStarts(t, c.dirs[3]); !strings.Contains(said, "other rules") || !strings.Contains(said, "zos ledger restore") || strings.Contains(said, "ValidatorSet") {
			t.Errorf("it says: %s", said)
		}
		if err := os.RemoveAll(c.dirs[3]); err != nil {
			t.Fatal(err)
		}
		if _, err := Restore(t.Context(), bytes.NewReader(saved), c.dirs[3], newest(t, c).Height()); err != nil {
			t.Fatal(err)
		}
		c.srv[3] = startBad(outer{t, c}, c.dirs[3], "", "")
		c.put(3, c.entry())
		return "a program that refuses one entry", "stops at the next block, its files say nothing wrong; says what to do, and is back from a backup"
	})
}
