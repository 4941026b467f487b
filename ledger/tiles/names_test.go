// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"regexp"
	"testing"
)

// fileNames is what ValidPath stands for.
var fileNames = regexp.MustCompile(`^(checkpoint|snapshot|consensus|pruned|root/[1-9][0-9]{0,8}\.json|tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/){0,5}[0-9]{3}(\.p/[1-9][0-9]{0,2})?)$`)

func pathSeeds() []string {
	seeds := []string{"", "checkpoint", "snapshot", "consensus", "pruned", "root", "root/", "root/1.json", "root/0.json", "root/01.json", "root/123456789.json", "root/1234567890.json", "root/1.json.json", "root/.json",
		"tile", "tile/", "tile/entries", "tile/entries/", "tile/0", "tile/0/", "tile/entries/000", "tile/entries/x000/000", "tile/entries/0000", "tile/entries/00", "tile//000", "tile/0/000/",
		"tile/0/x000/x000/x000/x000/x000/000", "tile/0/x000/x000/x000/x000/x000/x000/000", "tile/0/000/000", "tile/0/x000", "tile/0/y000/000",
		"tile/0/000.p/1", "tile/0/000.p/0", "tile/0/000.p/255", "tile/0/000.p/1000", "tile/0/000.p/", "tile/0/000.p/1.p/1", "tile/0/.p/1", "tile/0.p/1", "tile/entries.p/1", "../checkpoint", "tile/0/../000", "/checkpoint"}
	for _, level := range []string{"0", "00", "9", "10", "59", "60", "63", "64", "99", "100", "-1", "x", "entriess"} {
		seeds = append(seeds, "tile/"+level+"/001", "tile/"+level+"/x001/067.p/8")
	}
	return seeds
}

func TestValidPath(t *testing.T) {
	valid := 0
	same := func(s string) {
		want := fileNames.MatchString(s)
		if got := ValidPath(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
		if want {
			valid++
		}
	}
	for _, s := range pathSeeds() {
		same(s)
		// Each byte in front, between, behind, and in place of each.
		for at := range len(s) + 1 {
			for b := range 256 {
				c := string([]byte{byte(b)})
				same(s[:at] + c + s[at:])
				if at < len(s) {
					same(s[:at] + c + s[at+1:])
				}
			}
			if at < len(s) {
				same(s[:at] + s[at+1:])
			}
		}
	}
	if valid < 1000 {
		t.Fatalf("only %d of the paths were valid", valid)
	}
}

func FuzzValidPath(f *testing.F) {
	for _, s := range pathSeeds() {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if got, want := ValidPath(s), fileNames.MatchString(s); got != want {
			t.Errorf("%q: %v, want %v", s, got, want)
		}
	})
}
