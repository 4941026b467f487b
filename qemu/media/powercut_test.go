// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image/fat32"
)

// cuts is how often the power goes while an image is written.
const cuts = 20

// TestUpdatePowerCuts kills the machine again and again while it writes an
// update, each time a little later. After each cut an independent reader finds
// every image of the disk whole, and the machine boots from it; in the end it
// runs the update.
func TestUpdatePowerCuts(t *testing.T) {
	whole(t)
	f := newFleet(t, nil)
	images := f.two()
	size := int64(len(images["1.1"]))
	for i := range cuts {
		f.on()
		says(t, f.m, `msg=update .*to=1\.1`)
		begun := written(t, f.m.PID())
		at := size * int64(i) / cuts
		wrote := f.cutAfter(begun, at)
		f.whole(images)
		t.Logf("cut %d after %d of %d bytes", i+1, wrote, size)
	}
	f.arrives()
}

// TestUpdateCutsBehindTheWrite: the power goes when the image is in place and
// the machine is about to start again, when its trial has begun, and when it is
// just blessed.
func TestUpdateCutsBehindTheWrite(t *testing.T) {
	whole(t)
	f := newFleet(t, nil)
	images := f.two()
	for _, line := range []string{`msg="the machine starts again"`, `msg="this image is on trial"`, `msg="this image is blessed"`} {
		f.on()
		says(t, f.m, line)
		f.off()
		f.whole(images)
		t.Logf("cut at %s", line)
	}
	f.arrives()
}

// two releases 1.1; both images by their versions.
func (f *fleet) two() map[string][]byte {
	f.t.Helper()
	f.release("1.1", nil)
	images := map[string][]byte{}
	for version, name := range map[string]string{"1.0": "image/node.uki", "1.1": "node-1.1.uki"} {
		b, err := os.ReadFile(f.l.File(name))
		if err != nil {
			f.t.Fatal(err)
		}
		images[version] = b
	}
	return images
}

// arrives starts the machine until the ledger knows that 1.1 runs and stays.
func (f *fleet) arrives() {
	f.t.Helper()
	f.on()
	if u := f.until("blessed"); u.Running != "1.1" {
		f.t.Errorf("%+v", u)
	}
	f.off()
	f.slots("zos-1.0.efi", "zos-1.1.efi")
	f.t.Logf("%d starts", f.starts)
}

// cutAfter takes the power when the machine has written so many bytes more.
func (f *fleet) cutAfter(begun, n int64) int64 {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	for {
		if now := written(f.t, f.m.PID()) - begun; now > n {
			f.off()
			return now
		}
		select {
		case <-ctx.Done():
			f.t.Fatalf("the machine has not written %d bytes\n%s", n, f.m.Console.Tail(20))
		case <-f.m.Done():
			f.t.Fatalf("the machine went down before it had written %d bytes\n%s", n, f.m.Console.Tail(20))
		case <-time.After(2 * time.Millisecond):
		}
	}
}

var writeBytes = regexp.MustCompile(`(?m)^write_bytes: (\d+)$`)

// written is what a process has written to files, as the kernel counts.
func written(t *testing.T, pid int) int64 {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/io", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := writeBytes.FindSubmatch(b)
	if m == nil {
		t.Skipf("SKIP this kernel does not count what processes write: %q", b)
	}
	n, err := strconv.ParseInt(string(m[1]), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// whole holds every image on the disk against what was released.
func (f *fleet) whole(images map[string][]byte) {
	f.t.Helper()
	d, err := os.Open(f.disk)
	if err != nil {
		f.t.Fatal(err)
	}
	defer d.Close()
	all, err := fat32.Read(d, espStart, espSize)
	if err != nil {
		f.t.Fatal(err)
	}
	name := regexp.MustCompile(`(?i)^/EFI/Linux/zos-([0-9.]+)(\+[0-9-]+)?\.efi$`)
	blessed := false
	for _, file := range all {
		m := name.FindStringSubmatch(file.Path)
		if m == nil {
			continue
		}
		if !bytes.Equal(file.Content, images[m[1]]) {
			f.t.Fatalf("%s is not whole", file.Path)
		}
		blessed = blessed || m[2] == "" && !strings.Contains(m[1], "+")
	}
	if !blessed {
		f.t.Fatal("no image is blessed: nothing could be fallen back to")
	}
}
