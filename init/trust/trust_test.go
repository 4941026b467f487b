// SPDX-License-Identifier: Apache-2.0

package trust

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLook(t *testing.T) {
	good := strings.Repeat("AB", 32)
	for name, c := range map[string]struct {
		vars  map[string]string
		pcr   string // "-": a TPM without the register; "": no TPM
		want  State
		lacks []string
	}{
		"all there":   {map[string]string{"SecureBoot": "\x06\x00\x00\x00\x01", "SetupMode": "\x06\x00\x00\x00\x00"}, good + "\n", State{On, true, strings.ToLower(good), "", ""}, nil},
		"setup mode":  {map[string]string{"SecureBoot": "\x06\x00\x00\x00\x00", "SetupMode": "\x06\x00\x00\x00\x01"}, good, State{Setup, true, strings.ToLower(good), "", ""}, []string{"setup mode"}},
		"off, no TPM": {map[string]string{"SecureBoot": "\x06\x00\x00\x00\x00", "SetupMode": "\x06\x00\x00\x00\x00"}, "", State{Off, false, "", "", ""}, []string{"is off", "no TPM"}},
		"nothing":     {nil, "", State{None, false, "", "", ""}, []string{"no UEFI", "no TPM"}},
		"short":       {map[string]string{"SecureBoot": "\x06\x00"}, "", State{None, false, "", "", ""}, []string{"no UEFI", "no TPM"}},
		"zero":        {nil, strings.Repeat("0", 64), State{None, true, "", "", "register 11 is zero: the image was not measured"}, []string{"no UEFI", "zero"}},
		"ones":        {nil, strings.Repeat("F", 64), State{None, true, "", "", "register 11 is all ones: the TPM does not work"}, []string{"no UEFI", "all ones"}},
		"nonsense":    {nil, "xyz", State{None, true, "", "", `register 11 reads "xyz"`}, []string{"no UEFI", "xyz"}},
	} {
		t.Run(name, func(t *testing.T) {
			vars, tpm := t.TempDir(), filepath.Join(t.TempDir(), "tpm0")
			for n, b := range c.vars {
				if err := os.WriteFile(filepath.Join(vars, n+globalGUID), []byte(b), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			if c.pcr != "" {
				if err := os.MkdirAll(filepath.Join(tpm, "pcr-sha256"), 0o755); err != nil {
					t.Fatal(err)
				}
				for n, text := range map[string]string{"11": c.pcr, "12": strings.Repeat("0", 64)} {
					if err := os.WriteFile(filepath.Join(tpm, "pcr-sha256", n), []byte(text), 0o644); err != nil {
						t.Fatal(err)
					}
				}
			}
			got := Look(vars, tpm)
			if got != c.want {
				t.Errorf("%+v, want %+v", got, c.want)
			}
			lacks := got.Lacks()
			if text := got.Text(); !strings.HasPrefix(text, "secureBoot "+c.want.SecureBoot+"\npcr11 "+c.want.PCR11+"\n") || strings.Count(text, "\nlacks ") != len(c.lacks) {
				t.Errorf("tells the agent %q", text)
			}
			if len(lacks) != len(c.lacks) {
				t.Fatalf("lacks %q, want %q", lacks, c.lacks)
			}
			for i := range lacks {
				if !strings.Contains(lacks[i], c.lacks[i]) {
					t.Errorf("lacks %q, want %q", lacks[i], c.lacks[i])
				}
			}
		})
	}
	if s := Look(t.TempDir(), t.TempDir()); !s.TPM || !strings.Contains(s.Problem, "no SHA-256") {
		t.Errorf("a TPM without registers: %+v", s)
	}
}

// TestWordsFromOutside: register 12 is told where it holds something, and where
// it cannot be read nobody says that it holds nothing.
func TestWordsFromOutside(t *testing.T) {
	good := strings.Repeat("ab", 32)
	for text, want := range map[string]string{
		strings.ToUpper(good) + "\n": good, strings.Repeat("0", 64): "none", "": "unknown", strings.Repeat("F", 64): "unknown", "xyz": "unknown",
	} {
		tpm := t.TempDir()
		if err := os.MkdirAll(filepath.Join(tpm, "pcr-sha256"), 0o755); err != nil {
			t.Fatal(err)
		}
		for n, b := range map[string]string{"11": good, "12": text} {
			if b == "" {
				continue
			}
			if err := os.WriteFile(filepath.Join(tpm, "pcr-sha256", n), []byte(b), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got := Look(t.TempDir(), tpm)
		if got.Words() != want || got.PCR11 != good || (got.Problem != "") != (want == "unknown") {
			t.Errorf("register 12 is %q: %+v says %q, want %q", text, got, got.Words(), want)
		}
	}
	if got := (State{}).Words(); got != "unknown" {
		t.Errorf("no TPM says %q", got)
	}
}
