// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// made is a disk of any size that is zeros but for one part.
type made struct{ size, from, to int64 }

func (m made) ReadAt(b []byte, at int64) (int, error) {
	clear(b)
	for x := max(at, m.from); x < min(at+int64(len(b)), m.to); x++ {
		b[x-at] = 7
	}
	return len(b), nil
}

// TestHolds: a disk whose ends are zeros is not yet an empty one.
func TestHolds(t *testing.T) {
	const mib, tib = int64(1 << 20), int64(1 << 40)
	for name, c := range map[string]struct {
		disk    made
		written int64
		what    string
		most    int64 // bytes read
	}{
		"nothing":                        {made{20 * mib, 0, 0}, 10 * mib, "", 20 * mib},
		"nothing, small":                 {made{700, 0, 0}, 10 * mib, "", 700},
		"nothing, large":                 {made{4 * tib, 0, 0}, 10 * mib, "", 75 * mib},
		"the first byte":                 {made{20 * mib, 0, 1}, 10 * mib, "data", 20 * mib},
		"64 MiB from 2 MiB on":           {made{200 * mib, 2 * mib, 66 * mib}, 10 * mib, "data, such as at byte 2097152", 20 * mib},
		"one byte in the middle":         {made{20 * mib, 5*mib + 1, 5*mib + 2}, 10 * mib, "data, such as at byte 5242881", 20 * mib},
		"the last that is overwritten":   {made{4 * tib, 10*mib - 1, 10 * mib}, 10 * mib, "data, such as at byte 10485759", 10 * mib},
		"the last byte":                  {made{4 * tib, 4*tib - 1, 4 * tib}, 10 * mib, "data, such as at byte 4398046511103", 75 * mib},
		"the last byte of a small one":   {made{1000, 999, 1000}, 10 * mib, "data", 1000},
		"a thousandth, beyond the image": {made{4 * tib, 2 * tib, 2*tib + tib/256}, 10 * mib, "data, such as at byte", 75 * mib},
		"between image and end, a byte":  {made{15 * mib, 12 * mib, 12*mib + 1}, 10 * mib, "data, such as at byte 12582912", 15 * mib},
		"the disk ends before the image": {made{5 * mib, 5*mib - 1, 5 * mib}, 10 * mib, "data, such as", 5 * mib},
	} {
		told := int64(-1)
		got, looked, err := holds(t.Context(), c.disk, c.disk.size, c.written, func(_ string, done, total int64) {
			if done <= told || done > total {
				t.Errorf("%s: progress goes from %d to %d of %d", name, told, done, total)
			}
			told = done
		})
		if err != nil || !strings.HasPrefix(got, c.what) || (got == "") != (c.what == "") || looked > c.most || c.what == "" && looked < min(c.written, c.disk.size) {
			t.Errorf("%s: %q after %d bytes, %v; want %q after at most %d", name, got, looked, err, c.what, c.most)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := holds(ctx, made{200, 0, 0}, 200, 1, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
