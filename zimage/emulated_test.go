// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// TestSameOnAnotherMachine: the golden tables, and where chunks end, hold on the
// other kind of processor that there are boards for, whose code is other code
// (SHA-256, for one, is other assembly). QEMU plays that processor: all rows of the
// tables take seconds, the build for it a minute the first time.
func TestSameOnAnotherMachine(t *testing.T) {
	arch, qemu := "arm64", "qemu-aarch64"
	if runtime.GOARCH == "arm64" {
		arch, qemu = "amd64", "qemu-x86_64"
	}
	player, err := exec.LookPath(qemu)
	if err != nil {
		player, err = exec.LookPath(qemu + "-static")
	}
	if err != nil {
		t.Skipf("SKIP TestSameOnAnotherMachine: no %s or %s-static (package qemu-user)", qemu, qemu)
	}
	program := filepath.Join(t.TempDir(), "zimage.test")
	build := exec.Command("go", "test", "-c", "-o", program, ".")
	build.Env = append(os.Environ(), "GOOS=linux", "GOARCH="+arch, "CGO_ENABLED=0")
	start := time.Now()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build for %s: %v\n%s", arch, err, out)
	}
	built := time.Since(start)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, player, program, "-test.run=^(TestGolden|TestGoldenIDs|TestCut)$", "-test.v")
	cmd.Env = append(os.Environ(), "PATH=/nonexistent") // no judges: they have seen these bytes already
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, failures(arch, out))
	}
	roots, want := bytes.Count(out, []byte("--- PASS: TestGolden/")), len(corners())+len(rawCorners())
	ids := bytes.Count(out, []byte("--- PASS: TestGoldenIDs/"))
	if roots != want || ids == 0 {
		t.Errorf("on %s it held %d of %d roots, and %d ids:\n%s", arch, roots, want, ids, failures(arch, out))
	}
	t.Logf("%d roots and %d ids on %s: built in %v, ran %v", roots, ids, arch, built.Round(time.Second), (time.Since(start) - built).Round(time.Second))
}

// failures is what there is to read in the output of tests, each line marked: it is
// not what tests of this run say.
func failures(arch string, out []byte) string {
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, "=== RUN") && !strings.Contains(line, "--- PASS") && !strings.Contains(line, "SKIP") {
			lines = append(lines, arch+": "+line)
		}
	}
	return strings.Join(lines, "")
}
