// SPDX-License-Identifier: Apache-2.0

package image

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// judgeBuilt holds what a build left in a folder against the tools that its
// users have: nothing is complained about.
func judgeBuilt(t *testing.T, out string, version string) {
	t.Helper()
	t.Run("ukify inspect", func(t *testing.T) {
		cmd := exec.Command(debianPython, ukify(t), "--json=short", "inspect", filepath.Join(out, MediumUKI))
		var said strings.Builder
		cmd.Stderr = &said
		b, err := cmd.Output()
		if err != nil || said.Len() > 0 {
			t.Fatalf("%v: %s", err, said.String())
		}
		var sections map[string]struct {
			Size int64
			Text string
		}
		if err := json.Unmarshal(b, &sections); err != nil {
			t.Fatalf("%v: %s", err, b)
		}
		for _, must := range []string{".linux", ".initrd", ".cmdline", ".osrel", ".uname", ".pcrpkey", ".pcrsig"} {
			if sections[must].Size == 0 {
				t.Errorf("ukify finds no %s: %s", must, b)
			}
		}
		if !strings.Contains(sections[".osrel"].Text, version) {
			t.Errorf("ukify reads the version as %q", sections[".osrel"].Text)
		}
	})
	for _, medium := range []string{MediumDisk, MediumISO} {
		t.Run("sgdisk "+medium, func(t *testing.T) {
			if said := sh(t, judge(t, "sgdisk"), "-v", filepath.Join(out, medium)); !strings.Contains(said, "No problems found") {
				t.Error(said)
			}
		})
	}
	t.Run("sgdisk "+MediumDisk4K, func(t *testing.T) {
		if said := sh(t, judge(t, "sgdisk"), "-v", sectors4K(t, filepath.Join(out, MediumDisk4K))); !strings.Contains(said, "No problems found") {
			t.Error(said)
		}
	})
	for medium, sector := range map[string]int64{MediumDisk: 512, MediumDisk4K: 4096} {
		t.Run("fsck.vfat "+medium, func(t *testing.T) {
			said := sh(t, judge(t, "fsck.vfat"), "-n", "-v", esp(t, filepath.Join(out, medium), espStart))
			for _, bad := range []string{"invalid", "differ", "wrong", "dirty", "rror", "ncorrect", "Free cluster summary"} {
				if strings.Contains(said, bad) {
					t.Errorf("it says %q:\n%s", bad, said)
				}
			}
			if want := fmt.Sprintf("%d bytes per logical sector", sector); !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		})
	}
	t.Run("xorriso "+MediumISO, func(t *testing.T) {
		said := sh(t, judge(t, "xorriso"), "-abort_on", "WARNING", "-report_about", "NOTE", "-indev", filepath.Join(out, MediumISO), "-report_el_torito", "plain", "-check_media", "use=indev", "--")
		for _, bad := range []string{"WARNING", "FAILURE", "SORRY", "FATAL"} {
			if strings.Contains(said, bad) {
				t.Errorf("it says %q:\n%s", bad, said)
			}
		}
	})
}

// sectors4K is a device of 4096-byte sectors with an image's content: sgdisk reads
// files in sectors of 512 bytes only.
func sectors4K(t *testing.T, img string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("SKIP judge sgdisk of 4096-byte sectors: a loop device that has them needs root")
	}
	made, err := exec.Command("losetup", "--read-only", "--sector-size", "4096", "--find", "--show", img).CombinedOutput()
	if err != nil {
		t.Skipf("SKIP judge sgdisk of 4096-byte sectors: losetup: %v: %s", err, made)
	}
	device := strings.TrimSpace(string(made))
	t.Cleanup(func() {
		if b, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", device, err, b)
		}
	})
	return device
}
