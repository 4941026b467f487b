// SPDX-License-Identifier: Apache-2.0

package media

import (
	"bytes"
	"context"
	"crypto"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/agent/update/fat/fattest"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

const (
	updateBoard = "qemu-x86_64"
	// As image.Disk lays the boards' disks out.
	espStart = 1 << 20
	espSize  = 128 << 20
)

// fleet is one node with a disk of its own that keeps what is written to it,
// a ledger, and a mirror.
type fleet struct {
	t      *testing.T
	board  boards.Board
	l      *ledgerproc.Ledger
	store  string
	disk   string
	vars   string
	uki    image.UKI          // version 1.0, to make others from
	maker  *secureboot.Signer // of images; nil: they are not signed, and Secure Boot is off
	tpm    string             // folder of swtpm's state; "": the machine has no TPM
	m      *qemu.Machine
	chip   *qemu.TPM
	starts int
	// mirrors are beside the store's, and asked after it; ready, if there is one,
	// is called when a release is on the ledger and before its rollout.
	mirrors []string
	ready   func(uki []byte)
	of      string // the version whose rollout is watched; "": the newest one's
}

// newFleet flashes version 1.0, signed by a maker if there is one; the node is
// not started yet.
func newFleet(t *testing.T, maker *secureboot.Signer) *fleet {
	t.Helper()
	return newFleetOf(t, updateBoard, maker)
}

// newFleetOf is newFleet with a node of another board.
func newFleetOf(t *testing.T, board string, maker *secureboot.Signer) *fleet {
	t.Helper()
	f := &fleet{t: t, l: ledgerproc.Start(t, origin, 500), maker: maker}
	f.store, f.disk, f.vars = f.l.File("store"), f.l.File("disk.img"), f.l.File("vars.fd")
	if err := os.Mkdir(f.store, 0o755); err != nil {
		t.Fatal(err)
	}
	mirror, _ := serve(t, f.store)
	r := request(t, board, f.l.File("image"))
	f.board = r.Board
	r.Version, r.Hypervisor, r.Root, r.Keys = "1.0", image.FindHypervisor, f.l.RootEnvelope(), maker
	r.Seed = f.l.Seed("edge", "--mirror", fmt.Sprintf("http://%s:%d", ledgerproc.Gateway, mirror))
	if _, err := image.FindHypervisor(context.Background(), r.Parts); errors.Is(err, fs.ErrNotExist) && r.Board.Arch != "amd64" {
		t.Skipf("SKIP updates of %s: %v", board, err) // a node without a hypervisor blesses no image
	}
	if _, err := image.Build(context.Background(), r); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(r.Out, image.MediumUKI))
	if err != nil {
		t.Fatal(err)
	}
	if f.uki, err = image.ReadUKI(b); err != nil {
		t.Fatal(err)
	}
	if f.uki.Stub, err = stub(r); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(r.Out, image.MediumDisk), f.disk); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.off)
	return f
}

// release makes another version of the same image, altered by edit, signs it if
// there is a maker, and rolls it out.
func (f *fleet) release(version string, edit func(*image.UKI, *image.Tree)) {
	f.t.Helper()
	b := f.build(version, edit)
	if f.maker != nil {
		b = f.enrolled(b)
	}
	f.publish(version, b)
}

// enrolled signs a UKI for firmware that has the maker's keys.
func (f *fleet) enrolled(b []byte) []byte {
	f.t.Helper()
	signed, err := f.maker.DB.Sign(b)
	if err != nil {
		f.t.Fatal(err)
	}
	return signed
}

// build makes a UKI without a signature for firmware. Its measurement is signed if
// there is a maker, as zos node build does.
func (f *fleet) build(version string, edit func(*image.UKI, *image.Tree)) []byte {
	f.t.Helper()
	if f.maker == nil {
		return f.buildBy(nil, version, edit)
	}
	return f.buildBy(f.maker.PCR, version, edit)
}

// buildBy makes a UKI whose measurement is signed by a key; without one it has
// none.
func (f *fleet) buildBy(pcr crypto.Signer, version string, edit func(*image.UKI, *image.Tree)) []byte {
	f.t.Helper()
	u, more := f.uki, image.Patch()
	u.PCRKey, u.PCRSig = nil, nil
	u.OSRel = image.OSRelease(version, f.board.Name)
	more.File("etc/os-release", 0o644, u.OSRel)
	if edit != nil {
		edit(&u, more)
	}
	if u.Initrd != nil {
		var err error
		if u.Initrd, err = image.Appended(u.Initrd, more); err != nil {
			f.t.Fatal(err)
		}
	}
	var err error
	if pcr != nil {
		if u.PCRKey, err = measure.PublicKey(pcr); err != nil {
			f.t.Fatal(err)
		}
	}
	b, err := u.Build()
	if err != nil {
		f.t.Fatal(err)
	}
	if pcr == nil {
		return b
	}
	register, err := measure.UKI(bytes.NewReader(b))
	if err == nil {
		u.PCRSig, err = register.Sign(pcr)
	}
	if err == nil {
		b, err = u.Build()
	}
	if err != nil {
		f.t.Fatal(err)
	}
	return b
}

// publish releases a UKI and rolls it out.
func (f *fleet) publish(version string, b []byte) {
	f.t.Helper()
	f.put(version, b)
	if f.ready != nil {
		f.ready(b)
	}
	f.rollout(version, "--waves", "100")
}

// put releases a UKI.
func (f *fleet) put(version string, b []byte) {
	f.t.Helper()
	name := f.l.File("node-" + version + ".uki")
	if err := os.WriteFile(name, b, 0o644); err != nil {
		f.t.Fatal(err)
	}
	release := append([]string{"release", name, "--store", f.store}, f.signing()...)
	for _, m := range f.mirrors {
		release = append(release, "--mirror", m)
	}
	f.l.Zos(release...)
}

// rollout sends a release to nodes, and returns its place on the ledger.
func (f *fleet) rollout(version string, flags ...string) int64 {
	f.t.Helper()
	var r struct{ Index int64 }
	if err := json.Unmarshal(f.l.Zos(slices.Concat([]string{"rollout", version, "--json"}, flags, f.signing())...), &r); err != nil {
		f.t.Fatal(err)
	}
	return r.Index
}

func (f *fleet) signing() []string {
	return []string{"--ledger", f.l.URL, "--root", f.l.Root, "--key", f.l.File("release")}
}

// on starts the machine from its disk.
func (f *fleet) on() {
	f.t.Helper()
	f.starts++
	o := qemu.Options{Arch: f.board.Arch, Disk: f.disk, UEFI: &qemu.UEFI{Bus: "virtio", Keep: f.vars, Write: true, Secure: f.maker != nil}}
	if f.tpm != "" {
		var err error
		if f.chip, err = qemu.StartTPM(context.Background(), f.tpm); err != nil {
			f.t.Fatal(err)
		}
		o.UEFI.TPM = f.chip.Socket
	}
	f.m = start(f.t, o)
}

// off takes its power away.
func (f *fleet) off() {
	if f.m != nil {
		if err := f.m.Close(); err != nil {
			f.t.Error(err)
		}
	}
	if f.chip != nil {
		if err := f.chip.Close(); err != nil {
			f.t.Error(err)
		}
		f.chip = nil
	}
}

// update is a node's last word about the newest rollout, or that of a version.
type update struct{ Name, Result, Running, Reason string }

type rollout struct {
	Version string
	Nodes   []update
}

func (f *fleet) word() update {
	f.t.Helper()
	var st struct {
		Software struct {
			Rollouts []rollout
		}
	}
	if err := json.Unmarshal(f.l.Zos("status", "--ledger", f.l.URL, "--root", f.l.Root, "--json"), &st); err != nil {
		f.t.Fatal(err)
	}
	all := st.Software.Rollouts
	if f.of != "" {
		all = slices.DeleteFunc(all, func(r rollout) bool { return r.Version != f.of })
	}
	if n := len(all); n > 0 && len(all[n-1].Nodes) > 0 {
		return all[n-1].Nodes[0]
	}
	return update{}
}

// until starts the machine again whenever it went down, as a real one does by
// itself, until the ledger has a result.
func (f *fleet) until(result string) update {
	f.t.Helper()
	begun, starts := time.Now(), f.starts
	for deadline := begun.Add(4 * limitOf(f.board.Arch)); ; time.Sleep(time.Second) {
		u := f.word()
		if u.Result == result {
			f.t.Logf("%s after %d starts and %.0f s: %+v", result, f.starts-starts, time.Since(begun).Seconds(), u)
			return u
		}
		if time.Now().After(deadline) {
			f.t.Fatalf("the ledger has %+v, want %s\n%s", u, result, f.m.Console.Tail(40))
		}
		select {
		case <-f.m.Done():
			f.off()
			f.on()
		default:
		}
	}
}

// slots reads the disk when the machine is off.
func (f *fleet) slots(want ...string) {
	f.t.Helper()
	if names := f.ukis(); !slices.Equal(names, want) {
		f.t.Errorf("the disk has %v, want %v", names, want)
	}
}

// ukis are the names of the images on a disk that fsck.vfat has nothing against.
func (f *fleet) ukis() []string {
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
	var names []string
	for _, file := range all {
		if name, ok := strings.CutPrefix(file.Path, "/EFI/Linux/"); ok && strings.HasSuffix(name, ".efi") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	fattest.Fsck(f.t, f.disk, io.NewSectionReader(d, espStart, espSize), espSize)
	return names
}
