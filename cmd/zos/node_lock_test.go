// SPDX-License-Identifier: Apache-2.0

package main

import (
	"os"
	"path/filepath"
	"testing"
)

// TestLockRefused: nothing is fetched or written anywhere but in zos's own source,
// nor for a version that is none.
func TestLockRefused(t *testing.T) {
	other := t.TempDir() // somebody's program
	if err := os.WriteFile(filepath.Join(other, "go.mod"), []byte("module example.com/other\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	empty, cache := t.TempDir(), filepath.Join(t.TempDir(), "cache")
	for name, c := range map[string]struct {
		args []string
		code int
		says []string
	}{
		"any folder":        {[]string{"--source", empty}, exitNotFound, []string{"is not the folder of zos's own source", "go.mod", "run this in the repository"}},
		"a folder of Go":    {[]string{"--source", other}, exitNotFound, []string{"is not the folder of zos's own source", "debian.lock"}},
		"no such folder":    {[]string{"--source", filepath.Join(empty, "none")}, exitNotFound, []string{"is not the folder"}},
		"no version":        {[]string{"--source", "../..", "--hypervisor", "foo"}, exitUsage, []string{`--hypervisor "foo"`, "such as v54.0"}},
		"a path as version": {[]string{"--source", "../..", "--hypervisor", "v1.0/../x"}, exitUsage, []string{"such as v54.0"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, errs := zos(t, c.code, append([]string{"node", "lock", "--cache", cache}, c.args...)...)
			contains(t, errs, c.says...)
		})
	}
	for _, made := range []string{cache, filepath.Join(empty, "kernel"), filepath.Join(other, "kernel")} {
		if _, err := os.Stat(made); err == nil {
			t.Errorf("%s was made", made)
		}
	}
}
