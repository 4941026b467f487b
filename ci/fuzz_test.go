// SPDX-License-Identifier: Apache-2.0

package ci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// fuzzed has a target that holds and one that does not.
var fuzzed = map[string]string{
	"go.mod": "module sample\n\ngo 1.26\n",
	"one/one_test.go": `package one

import "testing"

func FuzzHolds(f *testing.F) { f.Fuzz(func(t *testing.T, n int) {}) }

func FuzzBreaks(f *testing.F) { f.Fuzz(func(t *testing.T, n int) { t.Error("so it is") }) }
`,
}

// TestFuzzTargetsMustRun: a target that was renamed, of which Go says that it
// passed, has failed, and so has one that found something.
func TestFuzzTargetsMustRun(t *testing.T) {
	script, err := os.ReadFile("fuzz.sh")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range fuzzed {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "ci"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ci/fuzz.sh"), script, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		fuzz string
		ok   bool
		says []string
	}{
		{"./one:FuzzHolds", true, []string{"ok   ./one FuzzHolds: execs: ", "1 passed, 0 failed"}},
		{"./one:FuzzNope ./one:FuzzBreaks", false, []string{"FAIL ./one FuzzNope", "want func FuzzNope", "FAIL ./one FuzzBreaks", "so it is", "0 passed, 2 failed"}},
	} {
		cmd := exec.Command(filepath.Join(dir, "ci/fuzz.sh"))
		cmd.Env = append(os.Environ(), "FUZZ="+c.fuzz, "FUZZTIME=20x", "JOBS=1", "GOWORK=off", "GOFLAGS=")
		out, err := cmd.CombinedOutput()
		if (err == nil) != c.ok {
			t.Errorf("%s: %v\n%s", c.fuzz, err, out)
		}
		for _, s := range c.says {
			if !strings.Contains(string(out), s) {
				t.Errorf("%s: it does not say %q:\n%s", c.fuzz, s, out)
			}
		}
	}
}
