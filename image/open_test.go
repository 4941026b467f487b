// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestRewrite: a medium that is read and written again has the same bytes, and
// a seed changes nothing but the seed.
func TestRewrite(t *testing.T) {
	eachMedium(t, func(t *testing.T, m medium) {
		img := m.make(t, 1_000_000)
		same, seeded := filepath.Join(t.TempDir(), "same"), filepath.Join(t.TempDir(), "seeded")
		if err := Rewrite(img, same, func(*Boot) {}); err != nil {
			t.Fatal(err)
		}
		a, err1 := fileItem(img)
		b, err2 := fileItem(same)
		if err1 != nil || err2 != nil || a != b {
			t.Errorf("%+v became %+v, %v, %v", a, b, err1, err2)
		}
		if err := Rewrite(img, seeded, func(b *Boot) { b.Seed = []byte("other") }); err != nil {
			t.Fatal(err)
		}
		got, err := Open(seeded)
		if err != nil {
			t.Fatal(err)
		}
		old, err := Open(img)
		if err != nil || !got.Same(old) || string(got.Seed) != "other" || got.Version != "1" || len(got.Keys) != 3 {
			t.Errorf("%v: seed %q, version %q, %d keys", err, got.Seed, got.Version, len(got.Keys))
		}
		if want := map[string]string{"disk": KindDisk, "disk4k": KindDisk, "iso": KindISO}[m.name]; got.Kind != want || got.Sector != m.sector {
			t.Errorf("kind %s, sectors of %d", got.Kind, got.Sector)
		}
	})
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, b := range map[string][]byte{"empty": nil, "text": []byte("hello"), "zeros": make([]byte, 1<<20), "pe": append([]byte("MZ"), make([]byte, 300)...), "many": bytes.Repeat([]byte("EFI PART"), 9999)} {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(p); !errors.Is(err, ErrMedium) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// TestOpenAll: the disk of a node that was updated has two UKIs and what the
// update notes; it is not what was built, but it can be looked into.
func TestOpenAll(t *testing.T) {
	dir := t.TempDir()
	old, next := sampleMedium(t, nil), sampleMedium(t, func(tree *Tree) { tree.File("etc/new", 0o644, []byte("n")) })
	disk := filepath.Join(dir, "disk")
	b := old.Boot
	b.Version = "1"
	if err := (Disk{ESPMiB: 64, Boot: b}).Write(disk); err != nil {
		t.Fatal(err)
	}
	fresh, err := Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	add := func(name string, content []byte) {
		t.Helper()
		file := filepath.Join(dir, "f")
		if err := os.WriteFile(file, content, 0o644); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command("mcopy", "-i", fmt.Sprintf("%s@@%d", disk, fresh.start), file, "::"+name).CombinedOutput()
		if err != nil {
			t.Fatalf("mcopy: %v\n%s", err, out)
		}
	}
	one, err := OpenAll(disk)
	if err != nil || len(one) != 1 || one[0].Path != "/EFI/Linux/zos-1.efi" {
		t.Fatalf("%d images, %v", len(one), err)
	}
	if r, err := InspectAll(one); err != nil || len(r[0].Beside) == 0 || r[0].Beside[0].Path != "esp:/loader/loader.conf" || r[0].Beside[0].Size == 0 {
		t.Errorf("%+v, %v", r, err)
	}
	add("/loader/zos-update.json", []byte("{}"))
	if _, err := Open(disk); !errors.Is(err, ErrMedium) {
		t.Errorf("a disk with what an update notes is as it was built: %v", err)
	}
	add("/EFI/Linux/zos-2+3.efi", next.UKI)
	if _, err := Open(disk); !errors.Is(err, ErrMedium) {
		t.Errorf("a disk with two UKIs is as it was built: %v", err)
	}
	all, err := OpenAll(disk)
	if err != nil || len(all) != 2 || !bytes.Equal(all[0].UKI, old.UKI) || !bytes.Equal(all[1].UKI, next.UKI) || all[1].Path != "/EFI/Linux/zos-2+3.efi" {
		t.Fatalf("%d images, %v", len(all), err)
	}
	reports, err := InspectAll(all)
	if err != nil || len(reports) != 2 || reports[0].PCR11 == reports[1].PCR11 || reports[1].Path != all[1].Path {
		t.Fatalf("%v, %v", reports, err)
	}
	if len(reports[0].Problems) != 0 || len(reports[1].Problems) != 1 || !strings.Contains(reports[1].Problems[0], "/etc/new") {
		t.Errorf("the old one: %v; the new one, with a file that is on no list: %v", reports[0].Problems, reports[1].Problems)
	}
	for _, m := range all { // a loader that is on no list is told of both
		m.Loader = old.UKI
	}
	if reports, err = InspectAll(all); err != nil || len(reports[0].Problems) != 1 || len(reports[1].Problems) != 2 {
		t.Errorf("a foreign loader: %v", err)
	}
}
