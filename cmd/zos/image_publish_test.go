// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/json"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rclone/gofakes3"
	"github.com/rclone/gofakes3/s3mem"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/zimage/extent"
)

func TestImagePublish(t *testing.T) {
	ref, store := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store")
	code, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var r converted
	if err := json.Unmarshal([]byte(out), &r); code != exitOK || err != nil {
		t.Fatalf("convert: %d %s %s %v", code, out, errs, err)
	}
	objects := s3mem.New()
	if err := objects.CreateBucket(t.Context(), "images"); err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(gofakes3.New(objects, gofakes3.WithV4Auth(map[string]string{"key": "secret"})).Server())
	defer srv.Close()
	t.Setenv("AWS_ENDPOINT_URL", srv.URL)
	t.Setenv("AWS_ACCESS_KEY_ID", "key")
	t.Setenv("AWS_SECRET_ACCESS_KEY", "secret")
	folder := filepath.Join(t.TempDir(), "mirror")
	start, bad, empty := filepath.Join(t.TempDir(), "start"), filepath.Join(t.TempDir(), "bad"), filepath.Join(t.TempDir(), "empty")
	for name, text := range map[string]string{start: trace.Encode(extent.List{{First: 0, Blocks: 1}}, 100), bad: "b.!", empty: "b.\n"} {
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
		{r.ID + " --to " + folder, exitOK, "image " + r.ID},
		{r.ID + " --to " + folder, exitOK, "sent 0 files"},
		{r.ID + " --to s3://images/p", exitOK, "image " + r.ID},
		{r.ID + " --to s3://images/p", exitOK, "sent 0 files"},
		{r.ID + " --to " + folder + " --start " + start, exitOK, "start pack of " + r.ID},
		{r.ID + " --to s3://images/p --start " + start, exitOK, "start pack of " + r.ID},
		{r.ID + " " + r.ID + " --to " + folder + " --start " + start, exitUsage, "of one image"},
		{r.ID + " --to " + folder + " --start " + start + ".none", exitNotFound, ""},
		{r.ID + " --to " + folder + " --start " + bad, exitRefused, "want the text"},
		{r.ID + " --to " + folder + " --start " + empty, exitRefused, "lists nothing"},
		{r.ID + " --to " + folder + " --start ledger", exitUsage, "--root"},
		{zeros + " --to " + folder, exitNotFound, ""},
		{"latest --to " + folder, exitUsage, "image id"},
		{r.ID + " --to ftp://x", exitUsage, "s3://"},
		{r.ID + " --to " + folder + "/none/none", exitNotFound, "no folder"},
		{r.ID + " --to s3://none", exitRefused, "NoSuchBucket"},
	} {
		code, out, errs := imageRun(t, append([]string{"image", "publish", "--store", store}, strings.Fields(c.args)...)...)
		if code != c.code || !strings.Contains(out+errs, c.says) {
			t.Errorf("publish %s: exit %d, want %d, and %q\n%s%s", c.args, code, c.code, c.says, out, errs)
		}
	}
	if code, _, errs := imageRun(t, "image", "verify", r.ID, "--store", folder); code != exitOK {
		t.Errorf("the folder: %d %s", code, errs)
	}
	// A folder whose disk has gone bad.
	chunks, err := filepath.Glob(filepath.Join(folder, "chunks", "*", "*.zst"))
	if err != nil || len(chunks) == 0 {
		t.Fatalf("no chunks: %v", err)
	}
	b, err := os.ReadFile(chunks[0])
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 1
	if err := os.WriteFile(chunks[0], b, 0o600); err != nil {
		t.Fatal(err)
	}
	if code, _, errs := imageRun(t, "image", "verify", r.ID, "--store", folder); code != exitRefused {
		t.Fatalf("the damaged folder: %d %s", code, errs)
	}
	if code, out, errs := imageRun(t, "image", "publish", r.ID, "--store", store, "--to", folder, "--check"); code != exitOK || !strings.Contains(out, "1 of them in place of others") {
		t.Errorf("publish --check: %d %s%s", code, out, errs)
	}
	if code, _, errs := imageRun(t, "image", "verify", r.ID, "--store", folder); code != exitOK {
		t.Errorf("the mended folder: %d %s", code, errs)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "other")
	if code, _, errs := imageRun(t, "image", "publish", r.ID, "--store", store, "--to", "s3://images"); code != exitRefused {
		t.Errorf("wrong key: %d %s", code, errs)
	}
	t.Setenv("AWS_SECRET_ACCESS_KEY", "")
	if code, _, errs := imageRun(t, "image", "publish", r.ID, "--store", store, "--to", "s3://images"); code != exitUsage {
		t.Errorf("no key: %d %s", code, errs)
	}
}
