// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"context"
	"slices"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/update/fat/fattest"
)

// bent is a disk that does not keep one sector as it was given: below the file
// system, which cannot know.
type bent struct {
	*fattest.Device
	sector []byte            // whose writes go wrong
	how    func(into []byte) // what becomes of it
	done   *int              // how often that happened
}

func (bent) Close() error { return nil }

func (d bent) WriteAt(b []byte, at int64) (int, error) {
	if i := bytes.Index(b, d.sector); i >= 0 {
		*d.done++
		b = bytes.Clone(b)
		old := make([]byte, len(d.sector))
		if _, err := d.ReadAt(old, at+int64(i)); err != nil {
			return 0, err
		}
		if d.how == nil { // lost: what was there stays
			copy(b[i:], old)
		} else {
			d.how(b[i : i+len(d.sector)])
		}
	}
	return d.Device.WriteAt(b, at)
}

// TestReadBack: an image that the disk did not keep, by one sector or one bit of
// it, gets no name that a loader knows; what runs is as it was, and the next
// attempt, on a disk that keeps what it is given, succeeds.
func TestReadBack(t *testing.T) {
	const size = 90_000
	flip := func(at int) func([]byte) { return func(b []byte) { b[at] ^= 1 } }
	for name, c := range map[string]struct {
		at  int // of the sector in the image
		how func([]byte)
	}{
		"a sector is lost":          {40 * 512, nil},
		"the first bit is turned":   {4 * 512, flip(0)},
		"a bit in a sector's end":   {100 * 512, flip(511)},
		"another sector is written": {20 * 512, func(b []byte) { clear(b) }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			r.rollout(r.release("1.1", size), "1.1", nil)
			before := there(t, r.disk)
			times := 0
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			u := r.updater("1.0", func() { t.Error("the machine starts again"); cancel() })
			u.cfg.Open = func() (Disk, error) {
				return bent{r.disk, r.images["1.1"][c.at : c.at+512], c.how, &times}, nil
			}
			if err := u.begin(ctx); err != nil {
				t.Fatal(err)
			}
			err := u.look(ctx)
			if times == 0 {
				t.Fatal("no write went wrong: nothing was tried")
			}
			if err == nil || !strings.Contains(err.Error(), "reads back") {
				t.Errorf("%v, want one that says what the partition reads back", err)
			}
			if got := r.slots(); !slices.Equal(got, []string{"zos-1.0.efi", "zos-next.part"}) {
				t.Errorf("there are %v", got)
			}
			if !bytes.Equal(there(t, r.disk)["zos-1.0.efi"], before["zos-1.0.efi"]) {
				t.Error("what runs was changed")
			}
			if got := r.settle(); got != "1.1" {
				t.Errorf("runs %s, once the disk keeps what it is given", got)
			}
		})
	}
}
