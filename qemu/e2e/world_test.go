// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// world is everything outside the node: keys, a ledger (a real one, in its own
// process), the gate before it, a store of images, and mirrors.
type world struct {
	t      *testing.T
	dir    string
	keys   map[string]sign.Signer
	root   string // file
	ledger string // URL of the real one
	gate   *gate
	store  *zimage.Store
	client *ledger.Client
	app    zimage.Manifest
	appID  string
	web    zimage.Manifest // for what must not be on the node yet
	webID  string
	blobs  map[string]string // vmlinuz, initramfs.cpio: digests
}

// repo is where the tests run from.
const repo = "../.."

// shared is what all tests of a run build once.
var shared struct {
	once sync.Once
	zos  string
	err  error
	dir  string
}

// build returns the folder with what every world needs: the zos command and
// the example's OCI images.
func build(t *testing.T) string {
	t.Helper()
	shared.once.Do(func() {
		if shared.dir, shared.err = filepath.Abs(filepath.Join(repo, "build/test/e2e")); shared.err != nil {
			return
		}
		shared.err = os.MkdirAll(shared.dir, 0o755)
		for _, args := range [][]string{
			{"build", "-o", shared.dir + "/", "./cmd/zos"},
			{"run", "./examples/shop/mkimages", "-o", filepath.Join(shared.dir, "oci")},
		} {
			if shared.err != nil {
				return
			}
			cmd := exec.Command("go", args...)
			cmd.Dir = repo
			if out, err := cmd.CombinedOutput(); err != nil {
				shared.err = fmt.Errorf("go %v: %w\n%s", args, err, out)
			}
		}
		shared.zos = filepath.Join(shared.dir, "zos")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.dir
}

// zos runs the operator's tool.
func zos(t *testing.T, args ...string) (stdout string, code int) {
	t.Helper()
	cmd := exec.Command(shared.zos, args...)
	out, err := cmd.Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return string(out) + string(exit.Stderr), exit.ExitCode()
	}
	if err != nil {
		t.Fatalf("zos %v: %v", args, err)
	}
	return string(out), 0
}

func mustZos(t *testing.T, args ...string) string {
	t.Helper()
	out, code := zos(t, args...)
	if code != 0 {
		t.Fatalf("zos %s: exit %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// newWorld makes keys, a ledger and a store with the app image.
func newWorld(t *testing.T) *world {
	t.Helper()
	base := build(t)
	w := &world{t: t, dir: t.TempDir(), keys: map[string]sign.Signer{}, blobs: map[string]string{}}
	for _, name := range []string{"root", "author", "security1", "security2", "operator"} {
		s, pem, err := sign.GenerateSigner()
		if err != nil {
			t.Fatal(err)
		}
		w.keys[name] = s
		w.write(name, pem)
		w.write(name+".pub", []byte(s.PublicKey()+"\n"))
	}
	dir := w.path("ledger")
	mustZos(t, "ledger", "init", dir, "--origin", "zos.example/e2e",
		"--role", "root="+w.path("root.pub")+":1", "--role", "author="+w.path("author.pub")+":1",
		"--role", "security="+w.path("security1.pub")+","+w.path("security2.pub")+":2", "--role", "operator="+w.path("operator.pub")+":1",
		"--require", "root=root", "--require", "deployment=author,security", "--require", "stop=author", "--require", "voucher=operator",
		"--root-key", w.path("root"))
	w.root = filepath.Join(dir, "root.json")
	mustZos(t, "ledger", "voucher", "--key", w.path("operator"), "--root", w.root, "--uses", "9", "--label", "site=e2e", "-o", w.path("voucher.json"))
	w.serveLedger(dir)
	w.gate = newGate(t, w.ledger)
	w.openClient()
	w.fillStore(filepath.Join(base, "oci"))
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), b, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

var listening = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)`)

// serveLedger runs the real ledger in its own process.
func (w *world) serveLedger(dir string) {
	w.t.Helper()
	cmd := exec.Command(shared.zos, "ledger", "serve", dir, "--listen", "127.0.0.1:0")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		w.t.Fatal(err)
	}
	log, err := os.Create(w.path("ledger.log"))
	if err != nil {
		w.t.Fatal(err)
	}
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			w.t.Errorf("end the ledger: %v", err)
		}
		if err := cmd.Wait(); err != nil {
			w.t.Errorf("the ledger ended: %v", err)
		}
		log.Close()
	})
	url := make(chan string, 1)
	go func() {
		for scan := bufio.NewScanner(out); scan.Scan(); {
			if m := listening.FindStringSubmatch(scan.Text()); m != nil {
				url <- m[1]
			}
		}
	}()
	select {
	case w.ledger = <-url:
	case <-time.After(time.Minute):
		b, err := os.ReadFile(w.path("ledger.log"))
		w.t.Fatalf("the ledger is not ready\n%s%v", b, err)
	}
}

func (w *world) openClient() {
	w.t.Helper()
	root, err := os.ReadFile(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	w.client, err = ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: []string{w.ledger}, KeepEntries: true})
	if err != nil {
		w.t.Fatal(err)
	}
}

// fillStore converts the example's images.
func (w *world) fillStore(layouts string) {
	w.t.Helper()
	var err error
	if w.store, err = zimage.OpenStore(w.path("store")); err != nil {
		w.t.Fatal(err)
	}
	w.app, w.appID = w.convert(filepath.Join(layouts, "app"))
	w.web, w.webID = w.convert(filepath.Join(layouts, "web"))
}

func (w *world) convert(layout string) (zimage.Manifest, string) {
	w.t.Helper()
	src, err := oci.OpenSource("oci:" + layout)
	if err != nil {
		w.t.Fatal(err)
	}
	m, id, err := zimage.Convert(context.Background(), src, "linux/amd64", w.store, nil)
	if err != nil {
		w.t.Fatal(err)
	}
	return m, id
}

// variant puts a blob into the store that differs from one of the guest's
// files by a trailing byte: it works the same and no node has it yet.
func (w *world) variant(guest, file string, tail byte) string {
	w.t.Helper()
	b, err := os.ReadFile(filepath.Join(guest, file))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write("variant", append(b, tail))
	d, err := w.store.AddBlob(w.path("variant"))
	if err != nil {
		w.t.Fatal(err)
	}
	return d
}

// addBlobs puts the guests' kernel and initramfs into the store.
func (w *world) addBlobs(guest string) {
	w.t.Helper()
	for _, f := range []string{"vmlinuz", "initramfs.cpio"} {
		d, err := w.store.AddBlob(filepath.Join(guest, f))
		if err != nil {
			w.t.Fatal(err)
		}
		w.blobs[f] = d
	}
}

// drivers are the hypervisors that nodes are tested with.
var drivers = []string{"cloud-hypervisor", "qemu"}

// anyDriver is Cloud Hypervisor where there is a binary, else QEMU.
func anyDriver(t *testing.T) string {
	if _, err := findCloudHypervisor(context.Background(), nil); err != nil {
		return "qemu"
	}
	return "cloud-hypervisor"
}

// findCloudHypervisor takes a given or kept binary; tests download nothing.
func findCloudHypervisor(ctx context.Context, parts *kernel.Source) (kernel.Hypervisor, error) {
	cache, err := kernel.CacheFile()
	if err != nil {
		return kernel.Hypervisor{}, err
	}
	if parts == nil {
		file := cache
		if local := os.Getenv("CLOUD_HYPERVISOR"); local != "" {
			file = local
		}
		_, err := os.Stat(file)
		return kernel.Hypervisor{}, err
	}
	return parts.CloudHypervisor(ctx, kernel.HypervisorOptions{Local: os.Getenv("CLOUD_HYPERVISOR"), Cache: cache})
}

// buildNode builds a test image with one driver. It returns the folder.
func (w *world) buildNode(driver string, seed []byte) (string, image.Result) {
	w.t.Helper()
	if driver == "cloud-hypervisor" {
		if _, err := findCloudHypervisor(context.Background(), nil); errors.Is(err, fs.ErrNotExist) {
			w.t.Skip("SKIP cloud-hypervisor: no binary here; CLOUD_HYPERVISOR=/path makes this case run")
		}
	}
	board, err := boards.Load("qemu-x86_64")
	if err != nil {
		w.t.Fatal(err)
	}
	root, err := os.ReadFile(w.root)
	if err != nil {
		w.t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
	parts, err := kernel.Open(kernel.Options{
		Cache: filepath.Join(repo, "build/cache/debian"), Lock: filepath.Join(repo, "kernel/debian.lock"),
		WorkLock: filepath.Join(repo, "build/debian.lock"), Arch: board.Arch, Log: log,
	})
	if err != nil {
		w.t.Fatal(err)
	}
	out, err := os.MkdirTemp(w.dir, "image-")
	if err != nil {
		w.t.Fatal(err)
	}
	res, err := image.Build(context.Background(), image.Request{
		Board: board, Source: repo, Parts: parts, Root: root, Seed: seed, Faults: true, Out: out, Guest: filepath.Join(out, "guest"),
		Log: log,
		Hypervisor: func(ctx context.Context, s *kernel.Source) (kernel.Hypervisor, error) {
			if driver == "qemu" {
				return s.DebianQEMU(ctx)
			}
			return findCloudHypervisor(ctx, s)
		},
	})
	if err != nil {
		w.t.Fatal(err)
	}
	w.addBlobs(filepath.Join(out, "guest"))
	return out, res
}

// seed composes a node's seed.
func (w *world) seed(name string, mirrors ...*mirror) []byte {
	w.t.Helper()
	args := []string{"node", "seed", "--name", name, "--ledger", w.gate.inside(), "--voucher", w.path("voucher.json"), "-o", w.path(name + ".seed")}
	for _, m := range mirrors {
		args = append(args, "--mirror", m.inside())
	}
	mustZos(w.t, args...)
	b, err := os.ReadFile(w.path(name + ".seed"))
	if err != nil {
		w.t.Fatal(err)
	}
	return b
}

func (w *world) mirror() *mirror { return newMirror(w.t, zimage.Handler(w.store)) }

// submit signs an entry with the named keys and hands it to the ledger
// itself. It returns the index.
func (w *world) submit(payloadType string, payload []byte, keys ...string) int64 {
	w.t.Helper()
	env := &sign.Envelope{PayloadType: payloadType, Payload: payload}
	for _, k := range keys {
		if err := env.Add(w.keys[k]); err != nil {
			w.t.Fatal(err)
		}
	}
	raw, err := env.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.client.Sync(ctx); err != nil {
		w.t.Fatal(err)
	}
	r, err := w.client.Submit(ctx, raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Index
}

// stop ends a deployment on the ledger.
func (w *world) stop(id int64, name string) {
	w.t.Helper()
	b, err := json.Marshal(ledger.Stop{Deployment: id, Name: name, Reason: "the test is over"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.submit(ledger.TypeStop, b, "author")
}

// until follows the ledger until the state is as wanted, and says what for
// when it is not.
func (w *world) until(ctx context.Context, what string, ok func(s *ledger.State) bool) {
	w.t.Helper()
	for {
		err := w.client.Sync(ctx)
		if err == nil && ok(w.client.State()) {
			return
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("the ledger does not show: %s (%v, %v)\n%s", what, err, ctx.Err(), w.story())
		}
	}
}

// story tells what the ledger holds, for a failed test.
func (w *world) story() string {
	s := w.client.State()
	var b strings.Builder
	for _, d := range s.Deployments() {
		fmt.Fprintf(&b, "deployment %d %s: %s\n", d.ID, d.Name, s.Status(d))
		for _, g := range s.Claims(d.ID) {
			for _, r := range s.Records(g.Index) {
				fmt.Fprintf(&b, "  claim %d %-18s %-7s %s %s\n", g.Index, r.Record.Phase, r.Record.Result, r.Record.Detail, r.Record.Error)
			}
			fmt.Fprintf(&b, "  claim %d: %s %s %s\n", g.Index, g.State, g.CloseResult, g.CloseReason)
		}
	}
	for _, i := range s.Incidents() {
		fmt.Fprintf(&b, "incident %s %s %s\n", i.Incident.Kind, i.Incident.Machine, i.Incident.Detail)
	}
	return b.String()
}

// running waits for a deployment to run and returns its claim.
func (w *world) running(ctx context.Context, id int64) *ledger.Grant {
	w.t.Helper()
	var g *ledger.Grant
	w.until(ctx, fmt.Sprintf("deployment %d runs", id), func(s *ledger.State) bool {
		d := s.Deployment(id)
		if s.Status(d) == ledger.Failed {
			w.t.Fatalf("the deployment failed\n%s", w.story())
		}
		for _, c := range s.Claims(id) {
			g = c
		}
		return s.Status(d) == ledger.Running
	})
	return g
}

// closed waits for the end of a deployment's claim.
func (w *world) closed(ctx context.Context, id int64, result string) *ledger.Grant {
	w.t.Helper()
	var g *ledger.Grant
	w.until(ctx, fmt.Sprintf("the claim of deployment %d is closed", id), func(s *ledger.State) bool {
		for _, c := range s.Claims(id) {
			g = c
		}
		return g != nil && g.Closed()
	})
	if g.CloseResult != result {
		w.t.Fatalf("closed as %q (%s), want %q\n%s", g.CloseResult, g.CloseReason, result, w.story())
	}
	return g
}

// failedIn returns the record of a claim that failed.
func (w *world) failedIn(g *ledger.Grant, phase string) *ledger.Record {
	w.t.Helper()
	for _, r := range w.client.State().Records(g.Index) {
		if r.Record.Result == "failed" {
			if r.Record.Phase != phase {
				w.t.Fatalf("failed in %s, want %s\n%s", r.Record.Phase, phase, w.story())
			}
			return r.Record
		}
	}
	w.t.Fatalf("no phase failed\n%s", w.story())
	return nil
}

// incidents of a kind.
func (w *world) incidents(kind string) []ledger.Reported {
	var all []ledger.Reported
	for _, i := range w.client.State().Incidents() {
		if i.Incident.Kind == kind {
			all = append(all, i)
		}
	}
	return all
}

// page fetches through a gateway.
func page(port int, path string) (string, error) {
	c := http.Client{Timeout: 10 * time.Second}
	r, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b := make([]byte, 4096)
	n, err := r.Body.Read(b)
	if n == 0 && err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", r.Status, b[:n])
	}
	return string(b[:n]), nil
}
