// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// TestStartOf: what a start has read is shown as bytes and files.
func TestStartOf(t *testing.T) {
	r := inspected{Manifest: zimage.Manifest{Chunks: []zimage.Chunk{{Size: 8192}, {Off: 8192, Size: 4096}, {Off: 12288, Size: 4096}}},
		Map: &zimage.Map{Files: []zimage.MapFile{{Path: "/a", Chunks: []int{0}}, {Path: "/b", Chunks: []int{1}}, {Path: "/c", Chunks: []int{1, 2}}}}}
	r.Start = startOf(&trace.Start{Deployment: "shop", Claim: 9, Machine: "web\x1b[2J", Blocks: extent.List{{First: 3, Blocks: 1}, {First: 1, Blocks: 1}}}, r.Manifest, r.Map)
	if r.Start.Bytes != 8192 || !slices.Equal(r.Start.Chunks, []int{2, 0}) || !slices.Equal(r.Start.Files, []string{"/c", "/a"}) {
		t.Errorf("%+v", r.Start)
	}
	var out strings.Builder
	printInspected(&out, r)
	if text := out.String(); !strings.Contains(text, "a start read 8192 bytes, of 2 chunks") || !strings.Contains(text, "of deployment shop, claim 9") || !strings.Contains(text, `something of "/c"`) || strings.Contains(text, "\x1b") {
		t.Error(text)
	}
	if startOf(nil, r.Manifest, nil) != nil {
		t.Error("a start without a trace")
	}
}

// TestInspectStart: what a node recorded of a start is found on the ledger.
func TestInspectStart(t *testing.T) {
	ref, store := "oci:"+smallLayout(t, "content"), filepath.Join(t.TempDir(), "store")
	_, out, errs := imageRun(t, "image", "convert", ref, "--store", store, "--json")
	var made converted
	if err := json.Unmarshal([]byte(out), &made); err != nil {
		t.Fatal(err, errs)
	}
	l := ledgertest.New(t)
	root := filepath.Join(t.TempDir(), "root.json")
	if err := os.WriteFile(root, l.RootEnv, 0o600); err != nil {
		t.Fatal(err)
	}
	n := l.Join("n1", 8192)
	d := l.Must(l.Register("shop", 1, nil))
	inspect := []string{"image", "inspect", made.ID, "--store", store, "--oci", ref, "--ledger", l.Dir, "--root", root}
	if code, _, errs := imageRun(t, inspect...); code != exitNotFound || !strings.Contains(errs, "no node has recorded") {
		t.Errorf("before: %d %s", code, errs)
	}
	claim := l.Must(n.Claim(d))
	g := l.State().Claim(claim)
	l.Must(n.Entry(ledger.TypeRecord, ledger.Record{Claim: claim, Seq: g.Records, Previous: g.LastRecord, Phase: "running", Result: "ok", StartedMs: ledgertest.Epoch, DurationMs: 5,
		Digests: map[string]string{"image/web": made.ID}, Detail: "guestKey/web=x; " + trace.Detail("web", extent.List{{First: made.DiskSize/extent.BlockSize - 1, Blocks: 1}, {First: 0, Blocks: 1}}, 1000), Acted: l.Acted()}))
	if code, out, errs := imageRun(t, inspect...); code != exitOK || !strings.Contains(out, ", of 2 chunks: ") || !strings.Contains(out, "machine web of deployment shop") {
		t.Errorf("after: %d %s %s", code, out, errs)
	}
	// And a start pack is made of it, from the ledger and from what inspect says.
	folder := filepath.Join(t.TempDir(), "mirror")
	publish := []string{"image", "publish", made.ID, "--store", store, "--to", folder, "--json", "--start"}
	code, out, errs := imageRun(t, append(publish, "ledger", "--ledger", l.Dir, "--root", root)...)
	var sent published
	if err := json.Unmarshal([]byte(out), &sent); code != exitOK || err != nil || len(sent.Items) != 2 || sent.Items[1].Kind != "start" || sent.Items[1].Pack.Blocks < 2 || sent.Items[1].Sent != 1 {
		t.Fatalf("publish --start ledger: %d %s %s, %v", code, out, errs, err)
	}
	at := filepath.Join(folder, "starts", strings.TrimPrefix(made.ID, "sha256:")+".br")
	first, err := os.ReadFile(at)
	if err != nil {
		t.Fatal(err)
	}
	_, out, _ = imageRun(t, append(inspect, "--json")...)
	var shown inspected
	text := filepath.Join(t.TempDir(), "start")
	if err := errors.Join(json.Unmarshal([]byte(out), &shown), os.WriteFile(text, []byte(shown.Start.Text+"\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	if code, out, errs := imageRun(t, append(publish, text)...); code != exitOK {
		t.Fatalf("publish --start FILE: %d %s %s", code, out, errs)
	}
	if second, err := os.ReadFile(at); err != nil || !bytes.Equal(first, second) {
		t.Errorf("the same start is another pack: %v", err)
	}
}
