// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestImageErrorsAdvise: an error says what to do, its code is the contract's, and
// what was refused leaves no folder behind.
func TestImageErrorsAdvise(t *testing.T) {
	layout := smallLayout(t, "content")
	store := filepath.Join(t.TempDir(), "store")
	code, out, errs := imageRun(t, "image", "convert", "oci:"+layout, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	kernel := filepath.Join(t.TempDir(), "vmlinuz")
	if err := os.WriteFile(kernel, []byte("a kernel"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, blob, errs := imageRun(t, "image", "blob", kernel, "--store", store)
	if code != exitOK {
		t.Fatalf("blob: %d %s", code, errs)
	}
	fresh := filepath.Join(t.TempDir(), "fresh")
	other, none := t.TempDir(), t.TempDir() // a folder of somebody's, and a layout without an image
	for name, text := range map[string]string{other + "/notes.txt": "mine", none + "/oci-layout": `{"imageLayoutVersion":"1.0.0"}`, none + "/index.json": `{"schemaVersion":2,"manifests":[]}`} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	zeros := "sha256:" + strings.Repeat("0", 64)
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"convert oci:" + layout + ":latest --store " + fresh, exitRefused, "want oci:" + layout},
		{"convert oci:" + fresh + " --store " + fresh, exitNotFound, "index.json"},
		{"convert oci:" + layout + " --platform windows/amd64 --store " + fresh, exitUsage, "linux/arm64"},
		{"convert oci:" + layout + " --platform linux/arm64 --store " + fresh, exitRefused, ""},
		{"inspect oci:" + layout + " --platform windows/amd64 --store " + store, exitUsage, "linux/arm64"},
		{"inspect " + r.ID + " --root root.json --store " + store, exitUsage, "--ledger"},
		{"inspect " + r.ID + " --state s --store " + store, exitUsage, "--ledger"},
		{"inspect " + r.ID + " --platform linux/amd64 --store " + store, exitUsage, "leave --platform out"},
		{"inspect " + r.ID + " --platform linux/amd64 --with oci:" + layout + " --store " + store, exitOK, ""},
		{"sbom " + r.ID + " --platform linux/amd64 --store " + store, exitUsage, "leave --platform out"},
		{"sbom oci:" + layout + " --platform linux/amd64 --store " + store, exitOK, ""},
		{"sbom oci:" + layout + " --platform windows/amd64 --store " + store, exitUsage, "linux/arm64"},
		{"verify " + r.ID + " --timeout 1ns --store " + store, exitUnreachable, "--timeout"},
		{"convert oci:" + layout + " --store " + other, exitRefused, "other things in it (\"notes.txt\"); name one that is empty"},
		{"blob " + other + "/notes.txt --store " + other, exitRefused, "other things"},
		{"publish " + r.ID + " --store " + store + " --to " + other, exitRefused, "other things"},
		{"verify " + zeros + " --store " + store, exitNotFound, store + " has no image of the id " + zeros},
		{"inspect " + zeros + " --store " + store, exitNotFound, "/manifests has a file for each"},
		{"export " + zeros + " -o " + fresh + " --store " + store, exitNotFound, "has no image of the id"},
		{"verify " + zeros + " --store " + other + "/notes.txt", exitFailed, "a store is a folder"},
		{"convert oci:" + layout + " --store " + other + "/notes.txt", exitFailed, "a store is a folder"},
		{"convert oci:" + none + " --store " + fresh, exitNotFound, "has no image for linux/amd64, and no other"},
		{"convert " + layout + " --store " + fresh, exitRefused, "want oci:" + layout},
		{"convert " + other + "/notes.txt --store " + fresh, exitRefused, "want docker-archive:" + other},
		{"inspect " + layout + " --store " + store, exitRefused, "want oci:" + layout},
		{"publish " + zeros + " --store " + store + " --to " + fresh, exitNotFound, "neither an image"},
		{"publish " + r.ID + " --root root.json --store " + store + " --to " + fresh, exitUsage, "--start ledger"},
		{"publish " + r.ID + " --ledger http://127.0.0.1:1 --store " + store + " --to " + fresh, exitUsage, "--start ledger"},
		{"publish " + r.ID + " --state s --store " + store + " --to " + fresh, exitUsage, "--start ledger"},
		{"publish " + r.ID + " --root root.json --start file --store " + store + " --to " + fresh, exitUsage, "--start ledger"},
		{"publish " + strings.TrimSpace(blob) + " --start file --store " + store + " --to " + fresh, exitUsage, "fetched whole"},
		{"publish " + r.ID + " " + zeros + " --store " + store + " --to " + fresh, exitNotFound, zeros},
	} {
		code, out, errs := imageRun(t, append([]string{"image"}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, want %d, and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
		if _, err := os.Lstat(fresh); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("%s: it left %s: %v", c.args, fresh, err)
		}
	}
	if list, err := os.ReadDir(other); err != nil || len(list) != 1 {
		t.Errorf("a folder of somebody's has %v, %v", list, err)
	}
	// What was begun may become a store.
	begun := t.TempDir()
	if err := os.Mkdir(filepath.Join(begun, "chunks"), 0o755); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := imageRun(t, "image", "convert", "oci:"+layout, "--store", begun); code != exitOK {
		t.Errorf("a store that was begun: %d %s", code, errs)
	}
	if err := storeError(&fs.PathError{Op: "open", Path: "s", Err: fs.ErrPermission}); !strings.Contains(err.Error(), "its owner can let you") || !errors.Is(err, fs.ErrPermission) {
		t.Error(err)
	}
	// A store that was there stays, and so does what is in it.
	empty := t.TempDir()
	if code, _, errs := imageRun(t, "image", "convert", "oci:"+layout, "--platform", "linux/arm64", "--store", empty); code != exitRefused {
		t.Errorf("%d %s", code, errs)
	}
	if _, err := os.Lstat(empty); err != nil {
		t.Error(err)
	}
}

// TestInspectHelp: the help promises nothing that is not done.
func TestInspectHelp(t *testing.T) {
	t.Setenv("ZOS_LEDGER", "http://ledger.example")
	if _, out, _ := imageRun(t, "image", "inspect", "--help"); strings.Contains(out, "ZOS_LEDGER") || strings.Contains(out, "ledger.example:") || !strings.Contains(out, "none is asked without this") {
		t.Error(out)
	}
	if _, out, _ := imageRun(t, "image", "publish", "--help"); !strings.Contains(out, "ZOS_LEDGER") { // where it counts
		t.Error(out)
	}
}

func TestStoppedBySignal(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	var out, errs bytes.Buffer
	code := run(ctx, []string{"image", "convert", "oci:" + smallLayout(t, "content"), "--store", filepath.Join(t.TempDir(), "s")}, &out, &errs)
	if code != exitInterrupted || !strings.Contains(errs.String(), "stopped by a signal") || strings.Contains(errs.String(), "context") {
		t.Errorf("exit %d: %s", code, errs.String())
	}
}
