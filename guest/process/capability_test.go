// SPDX-License-Identifier: Apache-2.0

package process

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// TestContained: what is the kernel's is not in the list that tests attack with
// (package vmtest), everything else is, and the spec's words for people name the
// same ones.
func TestContained(t *testing.T) {
	contained := Contained()
	var kernel []string
	for _, name := range names {
		if !slices.Contains(contained, name) {
			kernel = append(kernel, name)
		}
	}
	if want := strings.Fields("CAP_SYS_RAWIO CAP_SYS_PTRACE CAP_SYS_ADMIN CAP_PERFMON CAP_BPF"); !slices.Equal(kernel, want) {
		t.Errorf("the kernel's are %v, want %v", kernel, want)
	}
	if _, err := Capabilities(contained); err != nil || len(contained)+len(kernel) != len(names) {
		t.Errorf("%d of %d: %v", len(contained), len(names), err)
	}
	for _, path := range []string{"../../spec/types.go", "../../docs/images.md"} {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "CAP_SYS_RAWIO")
		sentence, _, ok := strings.Cut("CAP_SYS_RAWIO"+rest, " are the")
		if said := regexp.MustCompile("CAP_[A-Z_]+").FindAllString(sentence, -1); !ok || !slices.Equal(said, kernel) {
			t.Errorf("%s names %v, want %v", path, said, kernel)
		}
	}
}
