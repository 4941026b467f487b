// SPDX-License-Identifier: Apache-2.0

package lastwords

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

func store(t *testing.T, files map[string]string, at map[string]time.Time) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if when, ok := at[name]; ok {
			if err := os.Chtimes(p, when, when); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

func TestCollect(t *testing.T) {
	day := time.Unix(1_800_000_000, 0)
	dir := store(t, map[string]string{
		"dmesg-efi_pstore-1": "Panic#1 Part1\n<0>[   12.000003] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000200\n",
		"dmesg-efi_pstore-2": "Panic#1 Part2\n<6>[   11.000000] eth0: link up\n<12>[   12.000000] SIGQUIT: quit\n<12>[   12.000001] PC=\n<12>[   12.000002] 0x4711\n",
		"dmesg-efi_pstore-3": "Panic#1 Part1\n<0>[    9.000000][    T1] Kernel panic - not syncing: another day\n",
		"dmesg-efi_pstore-4": "Shutdown#1 Part1\n<13>[   60.000000] more about it\n<13>[   60.000001] zos: stopped: AGENT: the agent has been silent\n<6>[   61.000000] reboot: Restarting system\n",
		"console-ramoops-0":  "not one of ours",
	}, map[string]time.Time{
		"dmesg-efi_pstore-1": day, "dmesg-efi_pstore-2": day.Add(time.Second),
		"dmesg-efi_pstore-3": day.Add(time.Hour), "dmesg-efi_pstore-4": day.Add(2 * time.Hour),
	})
	got, err := Collect(dir)
	if err != nil {
		t.Fatal(err)
	}
	want := []struct{ kind, reason, detail, files string }{
		{"node-panic", "SIGQUIT: quitPC=0x4711", "eth0: link up\nSIGQUIT: quitPC=0x4711\nKernel panic", "dmesg-efi_pstore-2 dmesg-efi_pstore-1"},
		{"node-panic", "Kernel panic - not syncing: another day", "", "dmesg-efi_pstore-3"},
		{"node-stopped", "AGENT: the agent has been silent", "more about it\nzos: stopped: AGENT", "dmesg-efi_pstore-4"},
	}
	if len(got) != len(want) {
		t.Fatalf("%d reports: %+v", len(got), got)
	}
	for i, w := range want {
		var files []string
		for _, f := range got[i].Files {
			files = append(files, filepath.Base(f))
		}
		if g := got[i]; g.Kind != w.kind || g.Reason() != w.reason || !strings.Contains(g.Detail, w.detail) || strings.Join(files, " ") != w.files {
			t.Errorf("report %d: %+v\nwant %+v", i, g, w)
		}
	}
	if none, err := Collect(filepath.Join(dir, "none")); err != nil || none != nil {
		t.Errorf("no store: %v, %v", none, err)
	}
}

func TestDetailIsBounded(t *testing.T) {
	long := "Panic#1 Part1\n" + strings.Repeat("<6>[    1.000000] "+strings.Repeat("x", 99)+"\n", 200) + "<0>[    2.000000] Kernel panic - not syncing: y\n"
	got, err := Collect(store(t, map[string]string{"dmesg-erst-1": long}, nil))
	if err != nil || len(got) != 1 {
		t.Fatalf("%v, %v", got, err)
	}
	if n := len(got[0].Detail); n > 2*keep || !strings.HasSuffix(got[0].Detail, "not syncing: y") {
		t.Errorf("%d bytes, end %q", n, got[0].Detail[max(0, n-40):])
	}
}

func TestLeave(t *testing.T) {
	dir := t.TempDir()
	for _, detail := range []string{"first", "second"} {
		if err := Leave(dir, "agent", Report{Kind: "agent-ended", Detail: detail}); err != nil {
			t.Fatal(err)
		}
	}
	b, err := os.ReadFile(filepath.Join(dir, "agent.json"))
	if err != nil {
		t.Fatal(err)
	}
	var r Report
	if err := json.Unmarshal(b, &r); err != nil || r.Detail != "second" || r.Files == nil {
		t.Errorf("%s, %v", b, err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Errorf("%v, %v: want one file", list, err)
	}
}

func TestLines(t *testing.T) {
	for text, want := range map[string][]string{
		"<6>[    1.0] a\n<12>[    1.1] panic: \n<12>[    1.2] boom\n<12>[    1.3] \n<12>[    1.4] goroutine \n<12>[    1.5] 1\n<6>[    2.0] b\n": {"a", "panic: boom", "goroutine 1", "b"},
		"<6>[    1.0] [U] fatal error: x\n<6>[    1.0] [U] \tmain.go:7\n":                                                                        {"fatal error: x", "\tmain.go:7"},
		"without a stamp":           {"without a stamp"},
		"<4>[    1.0] a kernel's\n": {"a kernel's"},
	} {
		if got := Lines(text); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func FuzzCollect(f *testing.F) {
	f.Add("Panic#1 Part1\n<0>[    1.0] Kernel panic - not syncing: x\n", "Oops#2 Part2\n<12>[ 1.0] a")
	f.Fuzz(func(t *testing.T, a, b string) {
		dir := store(t, map[string]string{"dmesg-efi_pstore-1": a, "dmesg-efi_pstore-2": b}, nil)
		got, err := Collect(dir)
		if err != nil {
			t.Fatal(err)
		}
		files := 0
		for _, r := range got {
			files += len(r.Files)
		}
		if files != 2 {
			t.Errorf("%d files in %d reports", files, len(got))
		}
	})
}
