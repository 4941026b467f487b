// SPDX-License-Identifier: Apache-2.0

package update

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/agent/update/fat/fattest"
	"github.com/zos-node/zos/image/fat32"
)

// deedOf is one thing that an update does to the boot partition.
type deedOf struct {
	name    string
	running string
	do      func(*Updater) error
}

// TestPowerCuts cuts the power at every single write of an update over a blank
// partition, of one over an older image, of a blessing, and of a trial that is
// given up. The firmware then always finds an image that is whole, the agent
// makes fsck.vfat content, and the same can be done again to its end.
func TestPowerCuts(t *testing.T) {
	images := map[string][]byte{"1.0": uki("1.0", 60_000), "1.1": uki("1.1", 90_000), "1.2": uki("1.2", 30_000)}
	known := func(v string) []byte { return images[v] }
	dir := t.TempDir()
	put := func(version string) func(*Updater) error {
		b := images[version]
		path := filepath.Join(dir, version)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256(b)
		return func(u *Updater) error {
			return u.with(func(v *fat.Volume) (err error) {
				u.mem.Rollout = 7
				u.mem, err = install(v, u.cfg.About.Version, image{version, "sha256:" + hex.EncodeToString(sum[:]), int64(len(b)), path}, u.mem)
				return err
			})
		}
	}
	bless := func(u *Updater) error { return u.bless(0) }
	at := func(d *fattest.Device, running string) *Updater {
		r := &rig{t: t, disk: d}
		u := New(Config{Open: func() (Disk, error) { return handle{r.disk}, nil }, About: About{running, board}, Name: "edge", Blessed: func() error { return nil }, Log: discard})
		return u
	}
	d := flashed(t)
	cuts, judged := 0, 0
	for n, step := range []deedOf{
		{"1.1 beside 1.0", "1.0", put("1.1")}, {"1.1 blessed", "1.1", bless}, {"1.2 over 1.0", "1.1", put("1.2")}, {"1.2 blessed", "1.2", bless},
	} {
		if step.running != "1.0" && n%2 == 1 {
			if got := firmware(t, d, known); got != step.running {
				t.Fatalf("%s: the firmware starts %s", step.name, got)
			}
		}
		whole := d.Cut(func() bool { return true })
		for left := 0; ; left++ {
			cut := whole.Cut(func() bool { return true })
			cut.Left = left
			u := at(cut, step.running)
			_, err := u.resume()
			if err == nil {
				err = step.do(u)
			}
			if err == nil {
				break
			}
			if !errors.Is(err, fattest.ErrCut) {
				t.Fatalf("%s: %v", step.name, err)
			}
			for way, keep := range fattest.Ways(uint64(n*10_000+left), 2) {
				cuts++
				dead := cut.Cut(keep)
				what := fmt.Sprintf("%s, cut after %d writes, way %d", step.name, left, way)
				running := firmware(t, dead, known)
				u := at(dead, running)
				todo, err := u.resume()
				if err != nil {
					t.Fatalf("%s: %v", what, err)
				}
				if (left+way)%8 == 0 {
					judged++
					fattest.Fsck(t, what, dead, fat32.MinSize(512))
				}
				// Where it can be, it is brought to its end.
				switch {
				case running == step.running && todo != again:
					if err := step.do(u); err != nil {
						t.Fatalf("%s, again: %v", what, err)
					}
				case todo == trial:
					if err := bless(u); err != nil {
						t.Fatalf("%s, blessed: %v", what, err)
					}
				}
				firmware(t, dead, known)
			}
		}
		u := at(d, step.running)
		if _, err := u.resume(); err != nil {
			t.Fatal(err)
		}
		if err := step.do(u); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d cuts, fsck.vfat looked at %d of them", cuts, judged)
	if cuts < 200 {
		t.Errorf("only %d cuts: nothing was cut", cuts)
	}
}
