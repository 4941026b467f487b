// SPDX-License-Identifier: Apache-2.0

package ci

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// sample are packages whose tests fail in every way that there is.
var sample = map[string]string{
	"go.mod": "module sample\n\ngo 1.26\n",
	"one/one_test.go": `package one

import (
	"strings"
	"testing"
)

func TestGood(t *testing.T) { t.Log("good says this") }

func TestBad(t *testing.T) {
	t.Log("bad goes on")
	t.Run("sub", func(t *testing.T) { t.Errorf("sub is %d,\nwant %d", 1, 2) })
	t.Run("fine", func(t *testing.T) { t.Log("fine says this") })
	t.Fatal("bad ends here")
}

func TestSide(t *testing.T) {
	for _, name := range []string{"a", "b"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			t.Log("first of " + name)
			if name == "b" {
				t.Error("reason of b")
			}
		})
	}
}

func TestConsole(t *testing.T) {
	t.Error("the node was silent")
	t.Log("end of the console:\n" + strings.Repeat("old line\n", 300) + "last line")
}
`,
	"panics/p_test.go": "package panics\n\nimport \"testing\"\n\nfunc TestPanics(t *testing.T) { t.Log(\"before it\"); panic(\"so it is\") }\n",
	"broken/b_test.go": "package broken\n\nimport \"testing\"\n\nfunc TestBroken(t *testing.T) { undefined() }\n",
	"good/g_test.go":   "package good\n\nimport \"testing\"\n\nfunc TestBad(t *testing.T) { t.Log(\"of the good package\") }\n",
}

// TestFailuresAreShown runs tests that fail and holds that their reasons are
// in what test.sh shows, and what others said is not.
func TestFailuresAreShown(t *testing.T) {
	dir := t.TempDir()
	for name, text := range sample {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("go", "test", "-v", "-count=1", "-vet=off", "./...")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
	log, err := cmd.CombinedOutput()
	if err == nil {
		t.Fatalf("nothing failed:\n%s", log)
	}
	awk := exec.Command("awk", "-f", "failures.awk")
	awk.Stdin = strings.NewReader(string(log))
	b, err := awk.CombinedOutput()
	if err != nil {
		t.Fatalf("awk: %v\n%s", err, b)
	}
	out := string(b)
	for _, want := range []string{
		"== sample/one\n",
		"--- FAIL: TestBad (", "one_test.go:11: bad goes on", "one_test.go:14: bad ends here",
		"--- FAIL: TestBad/sub (", "one_test.go:12: sub is 1,\n        want 2\n",
		"--- FAIL: TestSide/b (", "first of b", "reason of b",
		"--- FAIL: TestConsole (", "the node was silent", "end of the console:", "last line",
		"--- FAIL: TestPanics (", "before it", "panic: so it is",
		"undefined: undefined",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	for _, wrong := range []string{"good says this", "fine says this", "first of a", "of the good package", "--- FAIL: TestGood"} {
		if strings.Contains(out, wrong) {
			t.Errorf("%q is no reason of a failure", wrong)
		}
	}
	if n := strings.Count(out, "old line"); n > 60 {
		t.Errorf("%d lines of a console, want its end only", n)
	}
	// Each reason stands with its own test.
	if bad, side := strings.Index(out, "--- FAIL: TestSide/b"), strings.Index(out, "reason of b"); side < bad || strings.Contains(out[bad+1:side], "--- FAIL") {
		t.Error("a reason stands with another test")
	}
	if t.Failed() {
		t.Logf("shown:\n%s\nof:\n%s", out, log)
	}
}
