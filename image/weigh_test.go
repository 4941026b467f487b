// SPDX-License-Identifier: Apache-2.0

package image

import "testing"

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
