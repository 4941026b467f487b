// SPDX-License-Identifier: Apache-2.0

package tree

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestDifferences: each thing that can differ between two trees is seen.
func TestDifferences(t *testing.T) {
	tree := func(change func(root string) error) map[string]string {
		t.Helper()
		root := t.TempDir()
		at := func(name string) string { return filepath.Join(root, name) }
		past := time.Unix(1e9, 5)
		for _, err := range []error{
			os.Mkdir(at("dir"), 0o755), os.WriteFile(at("dir/file"), []byte("content"), 0o600), os.WriteFile(at("dir/other"), []byte("content"), 0o600),
			os.Link(at("dir/file"), at("link")), os.Symlink("dir", at("sym")),
			os.Chtimes(at("dir/file"), past, past), os.Chtimes(at("dir/other"), past, past), change(root),
		} {
			if err != nil {
				t.Fatal(err)
			}
		}
		d, err := Describe(root, func(string) bool { return true })
		if err != nil {
			t.Fatal(err)
		}
		for name := range d { // a link has no time that os sets
			if name == "/sym" {
				d[name], _, _ = strings.Cut(d[name], " time=")
			}
		}
		return d
	}
	base := tree(func(string) error { return nil })
	if len(base) != 6 {
		t.Fatalf("%v", base)
	}
	for what, c := range map[string]struct {
		change func(root string) error
		names  int
	}{
		"nothing":      {func(string) error { return nil }, 0},
		"a byte":       {func(r string) error { return overwrite(r+"/dir/other", "contenT") }, 1},
		"a length":     {func(r string) error { return overwrite(r+"/dir/other", "content.") }, 1},
		"a mode":       {func(r string) error { return os.Chmod(r+"/dir", 0o700) }, 1},
		"a nanosecond": {func(r string) error { return os.Chtimes(r+"/dir/other", time.Unix(1e9, 6), time.Unix(1e9, 6)) }, 1},
		"a target":     {func(r string) error { return retarget(r + "/sym") }, 1},
		"a name more":  {func(r string) error { return os.Mkdir(r+"/more", 0o755) }, 1},
		"a name less":  {func(r string) error { return os.Remove(r + "/dir/other") }, 1},
		"a link less":  {func(r string) error { return os.Remove(r + "/link") }, 2},
	} {
		if got := Differences(tree(c.change), base); len(got) != c.names {
			t.Errorf("%s: %q", what, got)
		}
	}
}

// overwrite keeps a file's time.
func overwrite(name, content string) error {
	past := time.Unix(1e9, 5)
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		return err
	}
	return os.Chtimes(name, past, past)
}

func retarget(name string) error {
	if err := os.Remove(name); err != nil {
		return err
	}
	return os.Symlink("dir/", name)
}
