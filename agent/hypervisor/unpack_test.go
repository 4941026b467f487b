// SPDX-License-Identifier: Apache-2.0

package hypervisor

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"
)

func archive(t *testing.T, records ...cpio.Record) string {
	t.Helper()
	var plain bytes.Buffer
	w := cpio.Newc.Writer(&plain)
	if err := cpio.WriteRecords(w, records); err != nil {
		t.Fatal(err)
	}
	if err := cpio.WriteTrailer(w); err != nil {
		t.Fatal(err)
	}
	enc, err := zstd.NewWriter(nil)
	if err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "a.cpio.zst")
	if err := os.WriteFile(name, enc.EncodeAll(plain.Bytes(), nil), 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestUnpack(t *testing.T) {
	records := []cpio.Record{
		cpio.Directory("bin", 0o755), cpio.StaticRecord([]byte("program"), cpio.Info{Name: "bin/vmm", Mode: cpio.S_IFREG | 0o755}), cpio.Symlink("bin/link", "vmm"),
	}
	name, root := archive(t, records...), t.TempDir()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	// Twice, as after an agent that died before the archive was removed.
	for range 2 {
		if err := os.WriteFile(name, b, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := Unpack(name, root); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(filepath.Join(root, "bin/link")); err != nil || string(got) != "program" {
			t.Errorf("%q, %v", got, err)
		}
		if st, err := os.Stat(filepath.Join(root, "bin/vmm")); err != nil || st.Mode() != 0o755 {
			t.Errorf("%v, %v", st, err)
		}
		if _, err := os.Stat(name); !os.IsNotExist(err) {
			t.Errorf("the archive stays: %v", err)
		}
	}
	if err := Unpack(name, root); err != nil {
		t.Errorf("no archive: it was unpacked before, but %v", err)
	}
}

func TestUnpackRefuses(t *testing.T) {
	for what, r := range map[string]cpio.Record{
		"a device": cpio.CharDev("dev/x", 0o600, 1, 3), "a way out": cpio.StaticRecord([]byte("x"), cpio.Info{Name: "../x", Mode: cpio.S_IFREG | 0o644}),
	} {
		name, root := archive(t, r), t.TempDir()
		if err := Unpack(name, root); err == nil {
			t.Errorf("%s was unpacked", what)
		}
		if _, err := os.Stat(name); err != nil {
			t.Errorf("%s: the archive is gone: %v", what, err)
		}
	}
	broken := filepath.Join(t.TempDir(), "b")
	if err := os.WriteFile(broken, []byte("no archive"), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := Unpack(broken, t.TempDir()); err == nil {
		t.Error("nonsense was unpacked")
	}
}
