// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/zimage"
)

// TestStartOf: what a start has read is shown as bytes and files.
func TestStartOf(t *testing.T) {
	r := inspected{Manifest: zimage.Manifest{Chunks: []zimage.Chunk{{Size: 100}, {Size: 50}, {Size: 7}}},
		Map: &zimage.Map{Files: []zimage.MapFile{{Path: "/a", Chunks: []int{0}}, {Path: "/b", Chunks: []int{1}}, {Path: "/c", Chunks: []int{1, 2}}}}}
	r.Start = startOf(&trace.Start{Deployment: "shop", Claim: 9, Machine: "web\x1b[2J", Chunks: []int{2, 0}}, r.Manifest, r.Map)
	if r.Start.Bytes != 107 || !slices.Equal(r.Start.Files, []string{"/c", "/a"}) {
		t.Errorf("%+v", r.Start)
	}
	var out strings.Builder
	printInspected(&out, r)
	if text := out.String(); !strings.Contains(text, "a start read 2 chunks") || !strings.Contains(text, "of deployment shop, claim 9") || !strings.Contains(text, `something of "/c"`) || strings.Contains(text, "\x1b") {
		t.Error(text)
	}
	if startOf(nil, r.Manifest, nil) != nil {
		t.Error("a start without a trace")
	}
}
