// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/zos-node/zos/zimage"
)

// TestOutsideJudges runs what docs/images.md says to run, and what zos image export
// itself says, in a mount namespace of their own: tools that are not ours find the
// image right, and wrong when a byte of it is another.
func TestOutsideJudges(t *testing.T) {
	const skip = "SKIP TestOutsideJudges: "
	for _, tool := range []string{"veritysetup", "fsck.erofs", "sh", "mount"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(skip + "no " + tool + " (packages cryptsetup-bin, erofs-utils)")
		}
	}
	docs, err := os.ReadFile("../../docs/images.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(docs), ". Judges that are not ours\n")
	_, block, _ = strings.Cut(block, "```sh\n")
	block, _, found := strings.Cut(block, "```")
	mount := "mount -t erofs"
	if !found || strings.Count(block, mount) != 1 || !strings.Contains(block, "veritysetup verify") || !strings.Contains(block, "fsck.erofs") {
		t.Fatalf("docs/images.md says %q", block)
	}
	ref, store, work := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store"), t.TempDir()
	_, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var made converted
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err, errs)
	}
	bin := t.TempDir()
	if err := os.WriteFile(filepath.Join(bin, "zos"), fmt.Appendf(nil, "#!/bin/sh\nZOS_TEST_RUN=1 exec %s \"$@\"\n", os.Args[0]), 0o755); err != nil {
		t.Fatal(err)
	}
	sh := func(script string) (string, error) {
		if os.Geteuid() == 0 {
			script = "mount --make-rprivate /\n" + script
		}
		cmd := exec.CommandContext(t.Context(), "sh", "-e", "-c", script)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"), "ID="+made.ID, "STORE="+store, "ROOT="+made.VerityRoot, fmt.Sprint("DATA=", made.DataSize))
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS}
		}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	// mounting leaves out what a machine without EROFS, loop devices or root cannot.
	mounting := func(script string) string {
		i := strings.Index(script, mount)
		if os.Geteuid() != 0 {
			t.Log(skip + "the part that mounts, which needs root")
			return script[:i]
		}
		line, _, _ := strings.Cut(script[i:], "\n")
		if out, err := sh(line); err != nil && (strings.Contains(out, "unknown filesystem") || strings.Contains(out, "loop device")) {
			t.Logf(skip+"the part that mounts: no EROFS or loop devices here: %s", out)
			return script[:i]
		}
		return script
	}
	first := strings.Index(block, "veritysetup")
	if out, err := sh(block[:first]); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if out, err := sh(mounting(block[first:])); err != nil || strings.Contains(out, "<E>") {
		t.Errorf("docs: %v: %s", err, out)
	}
	// The same file from a mirror, and the lines that are shown with it.
	disk := filepath.Join(work, "disk.img")
	before, err := os.ReadFile(disk)
	if err != nil || int64(len(before)) != made.DiskSize {
		t.Fatalf("%d bytes, %v", len(before), err)
	}
	opened, err := zimage.ReadStore(store)
	if err != nil {
		t.Fatal(err)
	}
	mirror := httptest.NewServer(zimage.Handler(opened))
	defer mirror.Close()
	url := mirror.URL
	code, out, errs := imageRun(t, "image", "export", made.ID, "--store", url, "-o", disk)
	if after, err := os.ReadFile(disk); code != exitOK || err != nil || !bytes.Equal(before, after) {
		t.Fatalf("from a mirror: %d %v %s", code, err, errs)
	}
	var said []string
	for line := range strings.Lines(out) {
		if c, ok := strings.CutPrefix(line, "check "); ok {
			said = append(said, strings.TrimSpace(c))
		}
	}
	lines := strings.Join(said, "\n") + "\n"
	if len(said) != 3 || !strings.Contains(lines, mount) {
		t.Fatalf("it shows %q", out)
	}
	script := mounting(lines)
	if out, err := sh(script); err != nil || strings.Contains(out, "<E>") {
		t.Errorf("as shown: %v: %s", err, out)
	}
	for _, at := range []int64{made.DataSize / 2, made.DataSize + 1} { // data, and its tree
		wrong := bytes.Clone(before)
		wrong[at] ^= 1
		if err := os.WriteFile(disk, wrong, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := sh(said[0]); err == nil {
			t.Errorf("byte %d is another, and veritysetup says nothing: %s", at, out)
		}
	}
}

// TestExportRefuses: what is not right gets no file, and takes none away.
func TestExportRefuses(t *testing.T) {
	ref, store, work := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store"), t.TempDir()
	_, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var made converted
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err, errs)
	}
	disk := filepath.Join(work, "disk.img")
	if err := os.WriteFile(disk, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := filepath.WalkDir(filepath.Join(store, "chunks"), func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		b[len(b)/2] ^= 1
		return os.WriteFile(path, b, 0o600)
	}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{made.ID + " -o " + disk, exitRefused, "does not match"},
		{made.ID + " -o " + work, exitRefused, "is a folder"},
		{made.ID + " -o " + work + "/none/disk.img", exitNotFound, "none"},
		{made.ID, exitUsage, "--output"},
		{"sha256:" + strings.Repeat("0", 64) + " -o " + disk, exitNotFound, ""},
		{"junk -o " + disk, exitUsage, "64 hex digits"},
	} {
		if code, out, errs := imageRun(t, append([]string{"image", "export", "--store", store}, strings.Fields(c.args)...)...); code != c.code || !strings.Contains(errs, c.says) {
			t.Errorf("%s: exit %d, want %d, and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	list, err := os.ReadDir(work)
	b, rerr := os.ReadFile(disk)
	if err := errors.Join(err, rerr); err != nil || len(list) != 1 || string(b) != "mine" {
		t.Errorf("%v: %v, %q", err, list, b)
	}
}
