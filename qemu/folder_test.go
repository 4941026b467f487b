// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"os"
	"path/filepath"
	"testing"
	"time"
)

// TestSweep: what a killed rig left goes, what a living one uses stays.
func TestSweep(t *testing.T) {
	parent, now := t.TempDir(), time.Now()
	old := now.Add(-time.Hour)
	living, err := newFolder(parent, now)
	if err != nil {
		t.Fatal(err)
	}
	left, young, foreign := filepath.Join(parent, folderPrefix+"left"), filepath.Join(parent, folderPrefix+"young"), filepath.Join(parent, "foreign")
	for _, dir := range []string{left, young, foreign} {
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(left, "qmp"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{left, foreign, living.path} {
		if err := os.Chtimes(dir, old, old); err != nil {
			t.Fatal(err)
		}
	}
	second, err := newFolder(parent, now)
	if err != nil {
		t.Fatal(err)
	}
	for dir, want := range map[string]bool{left: false, young: true, foreign: true, living.path: true, second.path: true} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there is %t, want %t", filepath.Base(dir), err == nil, want)
		}
	}
	for _, f := range []*folder{living, second} {
		if err := f.remove(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(f.path); err == nil {
			t.Errorf("%s is left", f.path)
		}
	}
}
