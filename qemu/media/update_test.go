// SPDX-License-Identifier: Apache-2.0

package media

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

// change is what a version has that the first one has not; without an edit only
// its number.
type change struct {
	what string
	edit func(*image.UKI, *image.Tree)
}

var (
	works        = change{what: "works"}
	brokenAgent  = change{"agent: it ends at once", func(_ *image.UKI, more *image.Tree) { more.Symlink("bin/agent", "/init") }}
	brokenInit   = change{"init: it is no program", func(_ *image.UKI, more *image.Tree) { more.File("init", 0o755, []byte("junk")) }}
	brokenKernel = change{"kernel: it has no initramfs", func(u *image.UKI, _ *image.Tree) { u.Initrd = []byte("junk") }}
)

// TestUpdate: from version to version. One that is broken in its kernel, init or
// agent goes back to the one before, which says so on the ledger. On arm64 one has to
// do: what differs there is the firmware, the loader and the kernel's reset.
func TestUpdate(t *testing.T) {
	whole(t)
	for _, c := range []struct {
		board   string
		changes []change
	}{
		{updateBoard, []change{works, brokenAgent, brokenInit, brokenKernel, works}},
		{"qemu-arm64", []change{brokenInit, works}},
	} {
		t.Run(c.board, func(t *testing.T) { newFleetOf(t, c.board, nil).updates(c.changes) })
	}
}

// updates releases one version after the other.
func (f *fleet) updates(changes []change) {
	f.t.Helper()
	f.on()
	saysWithin(f.t, f.m, limitOf(f.board.Arch), `msg="following the ledger"`)
	running, before := "1.0", ""
	for i, c := range changes {
		version, starts := fmt.Sprintf("1.%d", 1+i), f.starts
		f.release(version, c.edit)
		if c.edit == nil {
			if u := f.until("blessed"); u.Running != version {
				f.t.Fatalf("%+v", u)
			}
			running, before = version, running
			continue
		}
		u := f.until("rolled-back")
		if u.Running != running || !strings.Contains(u.Reason, "its agent never came up") || !strings.Contains(u.Reason, "started 3 times") || f.starts-starts < 4 {
			f.t.Errorf("%s (%s): %+v after %d starts", version, c.what, u, f.starts-starts)
		}
	}
	f.off()
	f.slots("zos-"+before+".efi", "zos-"+running+".efi")
}

// TestUpdateByChunks: the last chunk of an image is wrong at the first mirror, and
// the second has no image yet. The node says what is wrong, and comes to run the
// image once the second mirror has it.
func TestUpdateByChunks(t *testing.T) {
	whole(t)
	f := newFleet(t, nil)
	second := f.l.File("second")
	if err := os.MkdirAll(filepath.Join(second, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	port, asked := serve(t, second)
	f.mirrors = []string{fmt.Sprintf("http://%s:%d", ledgerproc.Gateway, port)}
	var name string
	var good []byte
	write := func(dir string, b []byte) {
		t.Helper()
		tmp := filepath.Join(dir, "tmp-image")
		if err := errors.Join(os.WriteFile(tmp, b, 0o644), os.Rename(tmp, filepath.Join(dir, name))); err != nil {
			t.Fatal(err)
		}
	}
	f.ready = func(uki []byte) {
		name, good = fmt.Sprintf("blobs/%x", sha256.Sum256(uki)), uki
		wrong := slices.Clone(uki)
		wrong[len(wrong)-1] ^= 1
		write(f.store, wrong)
	}
	f.on()
	says(t, f.m, `msg="following the ledger"`)
	f.release("1.1", nil)
	says(t, f.m, `msg="mirror fault" .*kind=chunk-mismatch`)
	write(second, good)
	says(t, f.m, `msg="all chunks are here"`)
	if asked("/"+name) == 0 {
		t.Error("the second mirror was not asked")
	}
	if u := f.until("blessed"); u.Running != "1.1" {
		t.Fatalf("%+v", u)
	}
	for deadline := time.Now().Add(limit); ; time.Sleep(time.Second) { // it may take its time to the ledger
		out := f.l.Zos("node", "incidents", "--ledger", f.l.URL, "--root", f.l.Root, "--json")
		if strings.Contains(string(out), "chunk-mismatch") {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no incident chunk-mismatch on the ledger: %s", out)
		}
	}
}
