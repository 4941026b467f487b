// SPDX-License-Identifier: Apache-2.0

package trouble

import (
	"bufio"
	"context"
	"encoding/base64"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
	"github.com/zos-node/zos/sign"
)

const (
	repo  = "../.."
	board = "qemu-x86_64"
	// limit of one wait: an emulated machine is slow, a watchdog waits a minute.
	limit = 10 * time.Minute
)

// world is a ledger, a test image that trusts it, and a voucher.
type world struct {
	dir   string
	tool  string
	url   string // of the ledger, on this machine
	port  string
	root  []byte
	image string // folder
	res   image.Result
	parts *kernel.Source
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) zos(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(w.tool, args...).CombinedOutput(); err != nil {
		t.Fatalf("zos %v: %v\n%s", args, err, out)
	}
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir()}
	w.tool = w.path("zos")
	if out, err := exec.Command("go", "build", "-o", w.tool, "../../cmd/zos").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, k := range []string{"root", "author", "operator"} {
		s, secret, err := sign.GenerateSigner()
		if err != nil {
			t.Fatal(err)
		}
		w.write(t, k, secret)
		w.write(t, k+".pub", []byte(s.PublicKey()+"\n"))
	}
	p := w.path
	w.zos(t, "ledger", "init", p("ledger"), "--origin", "zos.example/trouble", "--role", "root="+p("root.pub")+":1", "--role", "author="+p("author.pub")+":1",
		"--role", "operator="+p("operator.pub")+":1", "--require", "root=root", "--require", "deployment=author", "--require", "stop=author",
		"--require", "voucher=operator", "--root-key", p("root"))
	root := filepath.Join(p("ledger"), "root.json")
	w.zos(t, "ledger", "voucher", "--key", p("operator"), "--root", root, "--uses", "100", "-o", p("voucher.json"))
	w.url = w.serve(t)
	w.port = regexp.MustCompile(`\d+$`).FindString(w.url)
	var err error
	if w.root, err = os.ReadFile(root); err != nil {
		t.Fatal(err)
	}
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
	w.image = p("image")
	w.res, err = image.Build(context.Background(), image.Request{
		Board: b, Source: repo, Parts: w.parts, Root: w.root, Faults: true, Out: w.image, Guest: filepath.Join(w.image, "guest"), Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) write(t *testing.T, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(w.path(name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

var listening = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)`)

// serve runs the ledger in a process of its own.
func (w *world) serve(t *testing.T) string {
	t.Helper()
	cmd := exec.Command(w.tool, "ledger", "serve", w.path("ledger"), "--listen", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Errorf("end the ledger: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the ledger ended: %v", err)
		}
	})
	url := make(chan string, 1)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if m := listening.FindStringSubmatch(scan.Text()); m != nil {
				select {
				case url <- m[1]:
				default:
				}
			}
		}
	}()
	select {
	case u := <-url:
		return u
	case <-time.After(2 * time.Minute):
		t.Fatal("the ledger is not ready")
		return ""
	}
}

// seed of a node of that name.
func (w *world) seed(t *testing.T, name string) []byte {
	t.Helper()
	out := w.path(name + ".seed")
	w.zos(t, "node", "seed", "--name", name, "--ledger", "http://10.0.2.2:"+w.port, "--voucher", w.path("voucher.json"), "-o", out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// incident waits until the ledger holds one of the node, of that kind.
func (w *world) incident(t *testing.T, node, kind string) ledger.Reported {
	t.Helper()
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: w.root, Ledgers: []string{w.url}, StateFile: w.path(node + ".state"), HTTP: http.DefaultClient})
	if err != nil {
		t.Fatal(err)
	}
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
			if names[r.Node] == node && r.Incident.Kind == kind {
				t.Logf("on the ledger: %s of %s: %s", kind, node, firstLine(r.Incident.Detail))
				return r
			}
		}
	}
	t.Fatalf("no incident %s of %s on the ledger, but %+v", kind, node, all)
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

// direct boots kernel and initramfs without firmware, with the seed inside.
func (w *world) direct(t *testing.T, name string, add files, o qemu.Options) *node {
	t.Helper()
	base, err := os.ReadFile(filepath.Join(w.image, "initramfs"))
	if err != nil {
		t.Fatal(err)
	}
	w.write(t, name+".initrd", w.patched(t, base, add, w.seed(t, name)))
	o.Kernel, o.Initrd, o.Cmdline = filepath.Join(w.image, "vmlinuz"), w.path(name+".initrd"), w.res.Cmdline
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
// seed in SMBIOS.
func (w *world) disk(t *testing.T, name string, add files, o qemu.Options) *node {
	t.Helper()
	o.Disk = filepath.Join(w.image, image.MediumDisk)
	if add != nil {
		o.Disk = w.path(name + ".img")
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
	o.SMBIOS = []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(w.seed(t, name))}
	o.UEFI = &qemu.UEFI{Bus: "virtio", Keep: w.path(name + ".vars")}
	return w.start(t, o)
}

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
	m, err := qemu.Start(o)
	if err != nil {
		t.Fatal(err)
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
