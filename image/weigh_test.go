// SPDX-License-Identifier: Apache-2.0

package image

import (
	"testing"

	"github.com/zos-node/zos/kernel"
)

func TestWeigh(t *testing.T) {
	m := sampleMedium(t, nil)
	shares, programs, err := Weigh(m.UKI)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]Share{}
	var packed int64
	for _, s := range shares {
		got[s.What] = s
		packed += s.Packed
	}
	for what, want := range map[string]int64{"agent": 1, "init": 1, "hypervisor": 1, "firmware": 1} {
		if s := got[what]; s.Files != 1 || s.Bytes != want || s.Packed == 0 {
			t.Errorf("%s: %+v", what, s)
		}
	}
	if _, ok := got["test program"]; ok {
		t.Error("a production image has a test program")
	}
	if packed < int64(len(m.UKI))*3/4 {
		t.Errorf("%d of %d bytes are accounted for: %+v", packed, len(m.UKI), shares)
	}
	if len(programs) != 0 {
		t.Errorf("%v: none of these is a program", programs)
	}
}

// TestWeighAsPacked: what a share takes is found by what the image was packed
// with, which is not the best level where the hypervisor is QEMU.
func TestWeighAsPacked(t *testing.T) {
	// Text at a distance beyond what the quick level looks for.
	agent := append(append(random(9<<20), noise()...), random(9<<20)...)
	quick, err := Zstd(agent)
	if err != nil {
		t.Fatal(err)
	}
	best, err := zstdBest(agent)
	if err != nil {
		t.Fatal(err)
	}
	if len(quick) == len(best) {
		t.Fatal("the two levels cannot be told apart by this")
	}
	for name, want := range map[string]int{"qemu": len(quick), "cloud-hypervisor": len(best)} {
		tree := NewTree()
		tree.File("bin/agent", 0o755, agent)
		tree.File(kernel.HypervisorPath[1:], 0o644, []byte(`{"name":"`+name+`"}`))
		plain, err := tree.CPIO()
		if err != nil {
			t.Fatal(err)
		}
		initrd, err := packed(name, "zstd", plain)
		if err != nil {
			t.Fatal(err)
		}
		u := UKI{Stub: stub(t), OSRel: OSRelease("1", "b"), Cmdline: "quiet", Uname: "6", Linux: []byte("kernel"), Initrd: initrd}
		b, err := u.Build()
		if err != nil {
			t.Fatal(err)
		}
		shares, _, err := Weigh(b)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range shares {
			if s.What == "agent" && s.Packed != int64(want) {
				t.Errorf("%s: the agent takes %d bytes, want %d", name, s.Packed, want)
			}
		}
	}
}
