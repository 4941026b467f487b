// SPDX-License-Identifier: Apache-2.0

package shortage

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestKilled(t *testing.T) {
	p := filepath.Join(t.TempDir(), "vmstat")
	for text, want := range map[string]int64{"nr_free_pages 1\noom_kill 3\nx 4\n": 3, "oom_kill 0\n": 0, "oom_kill x\n": -1, "nothing 1\n": -1} {
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := Killed(p); (err != nil) != (want < 0) || err == nil && n != want {
			t.Errorf("%q: %d, %v", text, n, err)
		}
	}
	if n, err := Killed(VMStat); err != nil || n < 0 {
		t.Errorf("this machine's: %d, %v", n, err)
	}
}

func TestWho(t *testing.T) {
	log := "<3>[    9.1] Out of memory: Killed process 7 (old)\n<3>[   10.2] Out of memory: Killed process 42 (fault) total-vm:1kB\n<6>[   11.0] fine\n"
	if got := Who(log); !strings.HasPrefix(got, "Out of memory: Killed process 42 (fault)") {
		t.Errorf("%q", got)
	}
	if got := Who("nothing"); !strings.Contains(got, "does not say") {
		t.Errorf("%q", got)
	}
}

func TestFull(t *testing.T) {
	for _, c := range []struct {
		free         int64
		before, want bool
	}{{100, false, false}, {51, false, false}, {49, false, true}, {0, false, true}, {51, true, true}, {99, true, true}, {101, true, false}} {
		if got := (Room{c.free, 1000}).Full(c.before); got != c.want {
			t.Errorf("%d of 1000 free, full before %v: %v", c.free, c.before, got)
		}
	}
	r, err := Look(t.TempDir())
	if err != nil || r.TotalMiB <= 0 {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := Look(filepath.Join(t.TempDir(), "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a store that is not there: %v", err)
	}
}
