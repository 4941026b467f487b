// SPDX-License-Identifier: Apache-2.0

package memory

import "testing"

func TestReserve(t *testing.T) {
	const mib = 1 << 10
	for name, c := range map[string]struct{ total, own, want int64 }{
		"512 MiB, as the kernel has it for huge pages": {512 * mib, 44 * mib, 8 * mib},
		"2 GiB":                             {2048 * mib, 44 * mib, 16 * mib},
		"64 GiB":                            {64 << 10 * mib, 88 * mib, 88 * mib},
		"a kernel that holds back less":     {2048 * mib, 5 * mib, 5 * mib},
		"a small one that holds back least": {256 * mib, 2 * mib, 2 * mib},
	} {
		if got := Reserve(c.total, c.own); got != c.want {
			t.Errorf("%s: %d KiB, want %d", name, got, c.want)
		}
	}
}

func TestField(t *testing.T) {
	info := []byte("MemTotal:        2021840 kB\nMemFree:         1895780 kB\nHugePages_Total:       0\n")
	if got, err := field(info, "MemFree:"); err != nil || got != 1895780 {
		t.Errorf("%d, %v", got, err)
	}
	if _, err := field(info, "MemAvailable:"); err == nil {
		t.Error("a field that is not there was found")
	}
}
