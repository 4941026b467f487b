// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// TestUnreadBeyondTheBound: what would take too much memory is listed, and
// nothing of it is kept; the databases behind it are read.
func TestUnreadBeyondTheBound(t *testing.T) {
	many := func(each string) string {
		var b strings.Builder
		for i := range maxCatalog/192 + 1 {
			fmt.Fprintf(&b, each, i)
		}
		return b.String()
	}
	long := strings.Repeat("x", 3*maxPiece) // what the decoder has read ahead does not count
	for name, c := range map[string]struct{ file, text string }{
		"packages of npm":    {"a/package-lock.json", `{"packages":{` + many(`"node_modules/p%d":{"version":"1"},`) + `"":{}}}`},
		"packages of dpkg":   {"var/lib/dpkg/status", many("Package: p%d\nVersion: 1\n\n")},
		"packages of cargo":  {"a/Cargo.lock", many("[[package]]\nname = \"p%d\"\n")},
		"a long value":       {"a/package-lock.json", `{"packages":{"node_modules/a":{"version":"1"},"node_modules/b":{"version":"` + long + `"}}}`},
		"a long name":        {"a/Pipfile.lock", `{"default":{"` + long + `":{"version":"1"}}}`},
		"a long line":        {"a/Gemfile.lock", "  specs:\n    a (1)\n    b (" + long + ")\n"},
		"a long foreign one": {"a/composer.lock", `{"packages":[{"name":"a/b","version":"1"}],"x":"` + long + `"}`},
		"deep":               {"a/package-lock.json", `{"packages":{"node_modules/a":{"version":"1"}},"x":` + strings.Repeat("[", maxPiece) + "}"},
		"deep dependencies":  {"a/package-lock.json", strings.Repeat(`{"dependencies":{"a":`, 60) + "{}" + strings.Repeat("}}", 60)},
		"more behind it":     {"a/package-lock.json", `{"packages":{"node_modules/a":{"version":"1"}}} {}`},
		"cut off":            {"a/package-lock.json", `{"packages":{"node_modules/a":{"version":"1"}`},
	} {
		t.Run(name, func(t *testing.T) {
			got := collected(t, treeOf(t, map[string]string{c.file: c.text, "z/Pipfile.lock": `{"default":{"last":{"version":"==1"}}}`}))
			if len(got.Packages) != 1 || got.Packages[0].Name != "last" || !slices.Equal(got.Unread, []string{"/" + c.file}) {
				t.Errorf("%d packages, unread %q", len(got.Packages), got.Unread)
			}
		})
	}
}

// TestRefusedBeyondTheBound: what cannot be left out without a word, and is
// too much for one.
func TestRefusedBeyondTheBound(t *testing.T) {
	deep := strings.Repeat("d", 200) + "/" + strings.Repeat(strings.Repeat("e", 200)+"/", 15)
	unread := map[string]string{}
	for i := range maxCatalog/len(deep) + 1 {
		unread[fmt.Sprintf("%s%d.jar", deep, i)] = "PK"
	}
	needs := make([]string, maxNeeded)
	for i := range needs {
		needs[i] = fmt.Sprintf("%0500d", i)
	}
	objects := map[string]string{}
	for i := range maxELF/(500*maxNeeded) + 1 {
		objects[fmt.Sprintf("x:bin/p%d", i)] = elfFile{interp: "/none", needed: needs[:]}.String() + fmt.Sprint(i)
	}
	for name, files := range map[string]map[string]string{"databases that are not read": unread, "shared objects": objects} {
		if c, err := Collect(treeOf(t, files)); !errors.Is(err, ErrLimit) {
			t.Errorf("%s: %v, %d unread, %d missing", name, err, len(c.Unread), len(c.Missing))
		}
	}
}

// TestSearchEnds: files that include each other are read so often and no more.
func TestSearchEnds(t *testing.T) {
	files := map[string]string{"etc/ld.so.conf": "include /etc/c/*\n", "lib/ld.so": elfFile{}.String(), "x:bin/a": elfFile{interp: "/lib/ld.so", needed: []string{"l.so"}}.String()}
	for i := range 200 {
		files[fmt.Sprintf("etc/c/%d", i)] = strings.Repeat(fmt.Sprintf("/dir%d\ninclude /etc/c/*\n", i), 20)
	}
	tree := treeOf(t, files)
	l := newLinker(tree)
	if dirs := l.system(&object{class: 2, machine: 62}); len(dirs) > maxDirs || l.configs > 0 {
		t.Errorf("%d folders, %d files left", len(dirs), l.configs)
	}
	if c := collected(t, tree); len(c.Missing) != 1 {
		t.Errorf("missing %v", c.Missing)
	}
}
