// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/qemu/ledgerproc"
)

const (
	repo  = "../.."
	board = "qemu-x86_64"
	// limit of one wait: an emulated machine is slow, a watchdog waits a minute.
	limit = 10 * time.Minute
)

// world is a ledger, and a test image that trusts it.
type world struct {
	*ledgerproc.Ledger
	root  []byte
	image string // folder
	res   image.Result
	parts *kernel.Source
}

func newWorld(t *testing.T) *world {
	t.Helper()
	return newWorldOf(t, board)
}

// newWorldOf is newWorld with an image of another board.
func newWorldOf(t *testing.T, board string) *world {
	t.Helper()
	w := &world{Ledger: ledgerproc.Start(t, "zos.example/trouble", 100)}
	w.root, w.image = w.RootEnvelope(), w.File("image")
	b, err := boards.Load(board)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelError}))
	w.parts, err = kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Arch: b.Arch, Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	r := image.Request{
		Board: b, Source: repo, Parts: w.parts, Root: w.root, Faults: true, Out: w.image, Guest: filepath.Join(w.image, "guest"), Log: log,
	}
	if b.Arch != "amd64" { // no guests here, and no second driver to take in its place: a program that only tells its version
		r.Hypervisor = func(ctx context.Context, _ *kernel.Source) (kernel.Hypervisor, error) {
			stub, err := image.Program{Package: "github.com/zos-node/zos/qemu/standin", Arch: b.Arch}.Build(ctx, repo)
			if err != nil {
				return kernel.Hypervisor{}, err
			}
			sum := sha256.Sum256(stub)
			const path = "/bin/cloud-hypervisor"
			return kernel.Hypervisor{Name: "cloud-hypervisor", Version: "none", Source: "local", Path: path,
				Digest: "sha256:" + hex.EncodeToString(sum[:]), Files: []kernel.File{{Path: path, Mode: 0o755, Data: stub}}}, nil
		}
	}
	w.res, err = image.Build(context.Background(), r)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// client follows the ledger from here, and keeps what it knows in a file of its own.
func (w *world) client(t *testing.T, name string) *ledger.Client {
	t.Helper()
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: w.root, Ledgers: []string{w.URL}, StateFile: w.File(name + ".state"), HTTP: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// enrolled are the ids of the nodes of a name on the ledger, the newest last.
func (w *world) enrolled(t *testing.T, name string) (ids []string) {
	t.Helper()
	c := w.client(t, name)
	if err := c.Sync(deadline(t)); err != nil {
		t.Fatal(err)
	}
	for _, n := range c.State().Nodes() {
		if n.Name == name {
			ids = append(ids, n.ID)
		}
	}
	return ids
}

// incident waits until the ledger holds one of the node, of that kind, whose
// detail has all the texts.
func (w *world) incident(t *testing.T, node, kind string, texts ...string) ledger.Reported {
	t.Helper()
	c := w.client(t, node)
	var all []ledger.Reported
	for end := time.Now().Add(limit); time.Now().Before(end); time.Sleep(time.Second) {
		if err := c.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
		names := map[string]string{}
		for _, n := range c.State().Nodes() {
			names[n.ID] = n.Name
		}
		all = c.State().Incidents()
		for _, r := range all {
			missing := func(text string) bool { return !strings.Contains(r.Incident.Detail, text) }
			if names[r.Node] == node && r.Incident.Kind == kind && !slices.ContainsFunc(texts, missing) {
				t.Logf("on the ledger: %s of %s: %s", kind, node, firstLine(r.Incident.Detail))
				return r
			}
		}
	}
	t.Fatalf("no incident %s of %s on the ledger that says %q, but %+v", kind, node, texts, all)
	return ledger.Reported{}
}

func firstLine(s string) string {
	l, _, _ := strings.Cut(s, "\n")
	return l
}

// node is a machine that boots.
type node struct {
	*qemu.Machine
	t *testing.T
	w *world
	o qemu.Options
}

// files are added to the image's initramfs.
type files map[string][]byte

// direct boots kernel and initramfs without firmware, with the seed inside; more
// are flags of zos node seed. The options' command line goes before the image's.
func (w *world) direct(t *testing.T, name string, add files, o qemu.Options, more ...string) *node {
	t.Helper()
	base, err := os.ReadFile(filepath.Join(w.image, "initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	w.Write(name+".initrd", w.patched(t, base, add, w.Seed(name, more...)))
	o.Kernel, o.Initrd, o.Cmdline = filepath.Join(w.image, "vmlinuz"), w.File(name+".initrd"), strings.TrimSpace(o.Cmdline+" "+w.res.Cmdline)
	return w.start(t, o)
}

func (w *world) patched(t *testing.T, base []byte, add files, nodeSeed []byte) []byte {
	t.Helper()
	patch := image.Patch()
	if nodeSeed != nil {
		patch.File("etc/zos/seed.json", 0o600, nodeSeed)
	}
	for name, b := range add {
		patch.File(name, 0o755, b)
	}
	both, err := image.Appended(base, patch)
	if err != nil {
		t.Fatal(err)
	}
	return both
}

// disk boots through firmware, whose variables outlive the machine, with the
// seed in SMBIOS. With o.UEFI.Write, the machine has a disk of its own that keeps
// what is written to it.
func (w *world) disk(t *testing.T, name string, add files, o qemu.Options) *node {
	t.Helper()
	o.Disk = filepath.Join(w.image, image.MediumDisk)
	if add != nil {
		o.Disk = w.File(name + ".img")
		b, err := os.ReadFile(filepath.Join(w.image, image.MediumUKI))
		if err != nil {
			t.Fatal(err)
		}
		uki, err := image.ReadUKI(b)
		if err != nil {
			t.Fatal(err)
		}
		uki.Initrd = w.patched(t, uki.Initrd, add, nil)
		efi, err := w.parts.EFI(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		uki.Stub = efi.Stub
		if b, err = uki.Build(); err != nil {
			t.Fatal(err)
		}
		if err := (image.Disk{ESPMiB: 128, Boot: image.Boot{Arch: "amd64", Version: image.Version, Loader: efi.Loader, UKI: b}}).Write(o.Disk); err != nil {
			t.Fatal(err)
		}
	}
	write := o.UEFI != nil && o.UEFI.Write
	if write && add == nil {
		own := w.File(name + ".img")
		if out, err := exec.Command("cp", "--sparse=always", o.Disk, own).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		o.Disk = own
	}
	o.SMBIOS = []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(w.Seed(name))}
	o.UEFI = &qemu.UEFI{Bus: "virtio", Keep: w.File(name + ".vars"), Write: write}
	return w.start(t, o)
}

// start boots a machine until its init has started a program. Every row's boots
// come through here: one that the emulator broke is started once more, and said.
func (w *world) start(t *testing.T, o qemu.Options) *node {
	t.Helper()
	if o.Accel.Name == "" {
		o.Accel = qemu.Probe(context.Background(), qemu.Binary)
	}
	if o.MemoryMiB == 0 {
		o.MemoryMiB = 1024
	}
	o.Faults = true
	o.Log = consoleLog(t)
	ctx, stop := context.WithTimeout(context.Background(), 2*limit) // for each of two boots
	defer stop()
	m, err := qemu.Boot(ctx, o, qemu.Up)
	if errors.Is(err, qemu.ErrFirmware) || errors.Is(err, exec.ErrNotFound) {
		t.Skipf("SKIP %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	if m.Retries > 0 {
		t.Logf("EMULATOR FAULT in %s: the first boot died or hung of the emulator, this is the second", t.Name())
	}
	n := &node{m, t, w, o}
	t.Cleanup(func() {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("end of the console:\n%s", n.Console.Tail(60))
		}
	})
	return n
}

// again boots the same machine once more, when its reset ended it.
func (n *node) again() *node {
	n.t.Helper()
	if err := n.Wait(deadline(n.t)); err != nil {
		n.t.Fatal(err)
	}
	return n.w.start(n.t, n.o)
}

// consoleLog is a file that outlives the test.
func consoleLog(t *testing.T) string {
	t.Helper()
	name := strings.Map(func(r rune) rune {
		if r == '/' || r == ' ' {
			return '-'
		}
		return r
	}, t.Name())
	dir := filepath.Join(repo, "build/test/trouble")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := filepath.Join(dir, name)
	for {
		if _, err := os.Stat(p + ".log"); err != nil {
			return p + ".log"
		}
		if err := os.Rename(p+".log", p+".before.log"); err != nil {
			t.Fatal(err)
		}
	}
}

func deadline(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	t.Cleanup(cancel)
	return ctx
}

// says waits for a line from a mark on.
func (n *node) says(m qemu.Mark, pattern string) qemu.Mark {
	n.t.Helper()
	_, _, next, err := n.Console.Expect(deadline(n.t), m, regexp.MustCompile(pattern))
	if err != nil {
		n.t.Fatal(err)
	}
	return next
}

const following = `msg="following the ledger"`

func (n *node) do(command map[string]any) map[string]any {
	n.t.Helper()
	var reply map[string]any
	if err := n.Fault(deadline(n.t), command, &reply); err != nil {
		n.t.Fatal(err)
	}
	return reply
}

// file reads one inside.
func (n *node) file(name string) string {
	n.t.Helper()
	return n.do(map[string]any{"do": "read", "file": name})["text"].(string)
}

// process is the pid of one that runs inside, 0 for none.
func (n *node) process(name string) int {
	n.t.Helper()
	for _, p := range n.do(map[string]any{"do": "stat"})["processes"].([]any) {
		if p := p.(map[string]any); p["name"] == name {
			return int(p["pid"].(float64))
		}
	}
	return 0
}
