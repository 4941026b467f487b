// SPDX-License-Identifier: Apache-2.0

package ahead

import (
	"os"
	"path/filepath"
	"testing"
)

func TestArriving(t *testing.T) {
	for line, want := range map[string]bool{
		"quiet zos.verity=ab,1 zos.arriving\n": true, "zos.arriving": true,
		"quiet zos.verity=ab,1": false, "zos.arriving=0": false, "xzos.arriving": false, "": false,
	} {
		if got := Arriving(line, "zos.arriving"); got != want {
			t.Errorf("%q: %v", line, got)
		}
	}
}

// TestOffAndOn: all switches are set, and then as they were; one that is not there
// is none.
func TestOffAndOn(t *testing.T) {
	sys := t.TempDir()
	queue, cluster := filepath.Join(sys, "block/dm-0/queue/read_ahead_kb"), filepath.Join(sys, "module/dm_verity/parameters/prefetch_cluster")
	is := func(name, want string) {
		t.Helper()
		if b, err := os.ReadFile(name); err != nil || string(b) != want {
			t.Errorf("%s: %q, %v; want %q", name, b, err, want)
		}
	}
	write := func(name, value string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if was, err := Off(sys, "dm-0"); err != nil || len(was) != 0 || was.On() != nil {
		t.Errorf("a kernel without switches: %v, %v", was, err)
	}
	write(queue, "128\n")
	write(cluster, "262144\n")
	was, err := Off(sys, "dm-0")
	if err != nil {
		t.Fatal(err)
	}
	is(queue, "0")
	is(cluster, "4096")
	if err := was.On(); err != nil {
		t.Fatal(err)
	}
	is(queue, "128")
	is(cluster, "262144")
	if err := os.RemoveAll(filepath.Join(sys, "block")); err != nil {
		t.Fatal(err)
	}
	if err := was.On(); err == nil {
		t.Error("a device that has gone is no error")
	}
}
