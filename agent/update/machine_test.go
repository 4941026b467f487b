// SPDX-License-Identifier: Apache-2.0

package update

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/update/fat"
	"github.com/zos-node/zos/agent/update/fat/fattest"
	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/image/imagetest"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

const board = "pc-x86_64"

var discard = slog.New(slog.DiscardHandler)

// uki is an image of a version; each is of another length.
func uki(version string, kernel int) []byte {
	b := make([]byte, kernel)
	sum := sha256.Sum256([]byte(version))
	r := rand.New(rand.NewChaCha8(sum))
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return imagetest.UKI(version, board, b)
}

// sparse is a disk that was written with an image, and reads as zeros else.
type sparse struct {
	size   int64
	pieces map[int64][]byte
}

const piece = 4096

func (s *sparse) WriteAt(b []byte, at int64) (int, error) {
	for i := range b {
		n := at + int64(i)
		if s.pieces[n/piece] == nil {
			s.pieces[n/piece] = make([]byte, piece)
		}
		s.pieces[n/piece][n%piece] = b[i]
	}
	return len(b), nil
}

func (s *sparse) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > s.size {
		return 0, io.EOF
	}
	clear(b)
	for i := 0; i < len(b); {
		n := at + int64(i)
		step := min(int(piece-n%piece), len(b)-i)
		if have := s.pieces[n/piece]; have != nil {
			copy(b[i:i+step], have[n%piece:])
		}
		i += step
	}
	return len(b), nil
}

// flashed is a boot partition as an image has it, with version 1.0.
func flashed(t testing.TB, files ...fat32.File) *fattest.Device {
	t.Helper()
	s := &sparse{fat32.MinSize(512), map[int64][]byte{}}
	v := fat32.Volume{Size: s.size, Sector: 512, ID: 1, Label: "ZOS", Files: append([]fat32.File{
		{Path: "/EFI/BOOT/BOOTX64.EFI", Content: []byte("systemd-boot")}, {Path: "/EFI/Linux/zos-1.0.efi", Content: uki("1.0", 60_000)},
		{Path: "/loader/loader.conf", Content: []byte("timeout 0\n")}, {Path: "/zos/seed.json", Content: []byte("{}")},
	}, files...)}
	if err := v.Write(s); err != nil {
		t.Fatal(err)
	}
	return fattest.New(s)
}

// there is what an independent reader finds below EFI/Linux.
func there(t testing.TB, d io.ReaderAt) map[string][]byte {
	t.Helper()
	all, err := fat32.Read(d, 0, fat32.MinSize(512))
	if err != nil {
		t.Fatal(err)
	}
	out := map[string][]byte{}
	for _, f := range all {
		if name, ok := strings.CutPrefix(f.Path, "/EFI/Linux/"); ok {
			out[name] = f.Content
		}
	}
	return out
}

// firmware boots a disk as systemd-boot does: the newest version that has a
// try left or needs none, counted before it is started. What it starts has to
// be an image to its last byte.
func firmware(t testing.TB, d *fattest.Device, known func(version string) []byte) string {
	t.Helper()
	files := there(t, d)
	var all []file
	for name := range files {
		if s, ok := parseSlot(name); ok {
			all = append(all, file{s, slotsDir + "/" + name})
		}
	}
	slices.SortFunc(all, func(a, b file) int {
		spent := func(s file) int { return map[bool]int{true: 1}[s.Counted && s.Left == 0] }
		return cmp.Or(cmp.Compare(spent(a), spent(b)), -ledger.CompareVersions(a.Version, b.Version), -cmp.Compare(a.Left, b.Left), cmp.Compare(a.Path, b.Path))
	})
	if len(all) == 0 {
		t.Fatal("BRICKED: nothing to start")
	}
	first := all[0]
	if !bytes.Equal(files[strings.TrimPrefix(first.Path, slotsDir+"/")], known(first.Version)) {
		t.Fatalf("BRICKED: %s is not whole", first.Path)
	}
	if first.Counted {
		counted := first.slot
		counted.Left, counted.Done = max(counted.Left-1, 0), counted.Done+1
		v, err := fat.Open(d)
		if err == nil && first.Path != counted.path() {
			err = v.Rename(first.Path, counted.path())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return first.Version
}

// fast is a clock on which every wait is over at once.
type fast struct{ now time.Time }

func (f *fast) Now() time.Time { return f.now }
func (f *fast) After(d time.Duration) <-chan time.Time {
	f.now = f.now.Add(d)
	ch := make(chan time.Time, 1)
	ch <- f.now
	return ch
}

// rig is a node that starts again and again, with a ledger.
type rig struct {
	t      *testing.T
	log    *ledgertest.Log
	disk   *fattest.Device
	images map[string][]byte
	broken map[string]string // version: "kernel", "init", "agent", "locked", "health" or "flickers"
	fetch  error
	get    func(t *ledger.Target, path string) error // instead of images, with mirrors
	asked  int                                       // how often an image was
	secure bool
	busy   int      // how often the boot partition of a node that is locked is
	maker  string   // that the node's state is sealed to
	starts []string // which versions the loader started
	clock  fast
	began  time.Time // when the machine started last
	// elsewhere is the version on another disk, when the firmware starts that one.
	elsewhere string
}

func newRig(t *testing.T) *rig {
	r := &rig{t: t, log: ledgertest.New(t), disk: flashed(t), images: map[string][]byte{"1.0": uki("1.0", 60_000)}, broken: map[string]string{}, clock: fast{time.UnixMilli(ledgertest.Epoch)}}
	return r
}

// release puts a version on the ledger, and a rollout to all.
func (r *rig) release(version string, kernel int) (release int64) {
	return r.put(version, uki(version, kernel))
}

// put puts an image on the ledger.
func (r *rig) put(version string, b []byte) (release int64) {
	r.images[version] = b
	sum := sha256.Sum256(b)
	p := r.log.Release(version, board)
	p.Images[0].Digest, p.Images[0].Size = "sha256:"+hex.EncodeToString(sum[:]), int64(len(b))
	return r.log.Must(r.log.Sign(ledger.TypeNodeRelease, p, "release"))
}

func (r *rig) rollout(release int64, version string, edit func(*ledger.Rollout)) int64 {
	p := r.log.Rollout(release, version)
	p.MaxFailed = 10
	if edit != nil {
		edit(&p)
	}
	return r.log.Must(r.log.Sign(ledger.TypeRollout, p, "release"))
}

// waits is the updater of an agent whose state does not open: it has neither a
// ledger nor a key.
func (r *rig) waits(restart func(), version string) *Updater {
	return New(Config{Open: func() (Disk, error) { return handle{r.disk}, r.open() }, About: About{version, board}, Clock: &r.clock, Log: discard,
		Restart: func(context.Context, string) error { restart(); return nil }})
}

// open is why the boot partition does not open, for so many times.
func (r *rig) open() error {
	if r.busy == 0 {
		return nil
	}
	r.busy--
	return errors.New("device or resource busy")
}

var errLocked = errors.New("the node's state is locked: sealed for images of another maker")

type handle struct{ *fattest.Device }

func (handle) Close() error { return nil }

// updater is the agent's of one start of the machine.
func (r *rig) updater(version string, restart func()) *Updater {
	n := r.log.NewNode("edge")
	r.log.Must(n.EnrolEntry(r.log.Voucher(fmt.Sprintf("v%d", r.log.State().Size()), 1, nil)))
	return New(Config{
		Open: func() (Disk, error) { return handle{r.disk}, nil }, About: About{version, board}, Name: "edge", Node: n.ID,
		Secure: func() bool { return r.secure }, Maker: r.maker, State: r.log.State, NowMs: r.log.NowMs,
		Fetch: func(_ context.Context, t *ledger.Target) (string, func(), error) {
			path := filepath.Join(r.t.TempDir(), "image")
			r.asked++
			if r.get != nil {
				return path, func() {}, r.get(t, path)
			}
			return path, func() {}, errors.Join(r.fetch, os.WriteFile(path, r.images[t.Version], 0o600))
		},
		Record: func(p ledger.Update) error {
			p.Acted = r.log.Acted()
			r.log.Must(n.Entry(ledger.TypeUpdate, p))
			return nil
		},
		Drain: func(context.Context) error { return nil },
		Healthy: func() error {
			how := r.broken[version]
			if how == "health" || how == "flickers" && r.clock.now.Sub(r.began)%Steady < every {
				return errors.New("the ledger is not followed")
			}
			return nil
		},
		Blessed: func() error { return nil }, Restart: func(context.Context, string) error { restart(); return nil },
		Clock: &r.clock, Log: slog.New(slog.DiscardHandler),
	})
}

// start boots once and lets the agent do what there is to do; it says whether
// the machine starts again by itself.
func (r *rig) start() (again bool) {
	r.t.Helper()
	version := r.elsewhere
	if version == "" {
		version = firmware(r.t, r.disk, func(v string) []byte { return r.images[v] })
	}
	r.starts, r.began = append(r.starts, version), r.clock.now
	switch r.broken[version] {
	case "kernel", "init":
		return true
	case "agent": // ends right after it has begun, until init has enough
		for range 6 {
			if _, err := r.updater(version, func() {}).resume(); err != nil {
				r.t.Fatal(err)
			}
		}
		return true
	}
	ctx, cancel := context.WithCancel(r.t.Context())
	defer cancel()
	if r.broken[version] == "locked" {
		r.waits(func() { again = true; cancel() }, version).Locked(ctx, errLocked)
		return again
	}
	u := r.updater(version, func() { again = true; cancel() })
	if err := u.begin(ctx); err != nil {
		r.t.Fatal(err)
	}
	for range 4 {
		if again {
			break
		}
		if err := u.look(ctx); err != nil {
			r.t.Logf("look: %v", err)
		}
		r.clock.After(every)
	}
	return again
}

// settle starts the machine until it stays up, and says what runs.
func (r *rig) settle() string {
	r.t.Helper()
	for range 20 {
		if !r.start() {
			return r.starts[len(r.starts)-1]
		}
	}
	r.t.Fatalf("the machine starts for ever: %v", r.starts)
	return ""
}

func (r *rig) slots() []string {
	var all []string
	for name := range there(r.t, r.disk) {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// wrong releases something that is not what the release says.
func (r *rig) wrong(version, how string) {
	b := imagetest.UKI(version, board+"x", []byte("kernel"))
	switch how {
	case "version":
		b = imagetest.UKI("9.9", board, []byte("kernel"))
	case "junk":
		b = []byte("junk")
	}
	r.put(version, b)
}
