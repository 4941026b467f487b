// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu/ledgerproc"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/zimage"
)

// world is everything outside the node: keys, a ledger (a real one, in its own
// process), the gate before it, a store of images, and mirrors.
type world struct {
	t      *testing.T
	board  boards.Board // of its nodes
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
	once   sync.Once
	zos    string
	err    error
	dir    string
	images map[string]string // by architecture: folder of the example's OCI images
}

// build makes what every world needs: the zos command, and the example's OCI
// images for an architecture, whose folder it returns.
func build(t *testing.T, arch string) string {
	t.Helper()
	shared.once.Do(func() {
		shared.images = map[string]string{}
		if shared.dir, shared.err = filepath.Abs(filepath.Join(repo, "build/test/e2e")); shared.err != nil {
			return
		}
		if shared.err = os.MkdirAll(shared.dir, 0o755); shared.err == nil {
			shared.err = goTool("build", "-o", shared.dir+"/", "./cmd/zos")
		}
		shared.zos = filepath.Join(shared.dir, "zos")
	})
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	if shared.images[arch] == "" {
		layouts, cache := filepath.Join(shared.dir, "oci"), "build/cache/debian"
		if arch != "amd64" {
			layouts, cache = layouts+"-"+arch, cache+"-"+arch
		}
		if err := goTool("run", "./examples/shop/mkimages", "-arch", arch, "-cache", cache, "-o", layouts); err != nil {
			t.Fatal(err)
		}
		shared.images[arch] = layouts
	}
	return shared.images[arch]
}

func goTool(args ...string) error {
	cmd := exec.Command("go", args...)
	cmd.Dir = repo
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go %v: %w\n%s", args, err, out)
	}
	return nil
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
	return newWorldOf(t, "qemu-x86_64")
}

// newWorldOf is newWorld with nodes of another board.
func newWorldOf(t *testing.T, board string) *world {
	t.Helper()
	b, err := boards.Load(board)
	if err != nil {
		t.Fatal(err)
	}
	layouts := build(t, b.Arch)
	w := &world{t: t, board: b, dir: t.TempDir(), keys: map[string]sign.Signer{}, blobs: map[string]string{}}
	for _, name := range []string{"root", "author", "security1", "security2", "operator", "release"} {
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
		"--role", "security="+w.path("security1.pub")+","+w.path("security2.pub")+":2", "--role", "operator="+w.path("operator.pub")+":1", "--role", "release="+w.path("release.pub")+":1",
		"--require", "root=root", "--require", "deployment=author,security", "--require", "stop=author", "--require", "voucher=operator",
		"--root-key", w.path("root"))
	w.root = filepath.Join(dir, "root.json")
	mustZos(t, "ledger", "voucher", "--key", w.path("operator"), "--root", w.root, "--uses", "9", "--label", "site=e2e", "-o", w.path("voucher.json"))
	w.ledger = ledgerproc.Serve(t, shared.zos, dir)
	w.gate = newGate(t, w.ledger)
	w.openClient()
	w.fillStore(layouts)
	return w
}

func (w *world) path(name string) string { return filepath.Join(w.dir, name) }

func (w *world) write(name string, b []byte) {
	w.t.Helper()
	if err := os.WriteFile(w.path(name), b, 0o600); err != nil {
		w.t.Fatal(err)
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
