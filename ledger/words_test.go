// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"regexp"
	"strings"
	"testing"

	"github.com/zos-node/zos/spec"
)

// words are the names of words.go, with the regular expressions that they stand for.
var words = []struct {
	name    string
	is      func(string) bool
	pattern string
}{
	{"DNS label", spec.IsDNSLabel, `^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`},
	{"word", isWord, `^[a-z][a-z0-9-]{0,62}$`},
	{"board", isBoard, `^[a-z0-9][a-z0-9_-]{0,62}$`},
	{"digest", spec.IsDigest, `^sha256:[0-9a-f]{64}$`},
	{"label key", isLabelKey, `^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,62}[a-zA-Z0-9])?$`},
	{"version", ValidVersion, `^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,3}$`},
}

// wordSeeds are strings at the borders of the patterns.
func wordSeeds() []string {
	seeds := []string{"", "a", "-", "_", "9", "a-", "-a", "a-b", "A", "aZ", "a_b", "a.b", "a/b", "a\n", "\n", "é", "a\x00", "a\xff", "/", "z{", "`a", "@A", "[Z", "9:", "/0",
		"1.0", "1", "1.2.3.4", "1.2.3.4.5", "1..2", ".1", "1.", "01.2", "0.0", "1.00", "123456789.1", "1234567890.1", "1.a", "1.-2", "1.2\n",
		"sha256:", "sha256:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("f", 63), "sha256:" + strings.Repeat("f", 65),
		"sha256:" + strings.Repeat("g", 64), "sha256:" + strings.Repeat("A", 64), "sha512:" + strings.Repeat("0", 64), "sha256:" + strings.Repeat("0", 64) + "\n"}
	for n := 61; n < 67; n++ {
		seeds = append(seeds, strings.Repeat("a", n), strings.Repeat("Z", n), strings.Repeat("a", n-1)+"-", "-"+strings.Repeat("a", n-1))
	}
	return seeds
}

// sameAsPatterns fails t where a name is taken that its pattern would refuse, or
// the other way round.
func sameAsPatterns(t *testing.T, patterns []*regexp.Regexp, s string) (taken int) {
	t.Helper()
	for i, w := range words {
		want := patterns[i].MatchString(s)
		if got := w.is(s); got != want {
			t.Errorf("%s %q: %v, want %v", w.name, s, got, want)
		}
		if want {
			taken++
		}
	}
	return taken
}

func compiled() (patterns []*regexp.Regexp) {
	for _, w := range words {
		patterns = append(patterns, regexp.MustCompile(w.pattern))
	}
	return patterns
}

func TestWords(t *testing.T) {
	patterns, taken := compiled(), 0
	for _, s := range wordSeeds() {
		taken += sameAsPatterns(t, patterns, s)
		// Each byte put in front, behind, and in place of the middle one.
		for b := range 256 {
			c := string([]byte{byte(b)})
			taken += sameAsPatterns(t, patterns, c+s) + sameAsPatterns(t, patterns, s+c)
			if m := len(s) / 2; s != "" {
				taken += sameAsPatterns(t, patterns, s[:m]+c+s[m+1:])
			}
		}
	}
	if taken < 1000 {
		t.Fatalf("only %d of the strings were taken by any pattern", taken)
	}
}

func FuzzWords(f *testing.F) {
	for _, s := range wordSeeds() {
		f.Add(s)
	}
	patterns := compiled()
	f.Fuzz(func(t *testing.T, s string) { sameAsPatterns(t, patterns, s) })
}
