// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/boards"
)

// chain is the way of one deployment, from keys to a checked page.
type chain struct {
	board           string
	imageOnly, stay bool
	signKeys        string // for Secure Boot, or ""
	version         string // of the image, or ""
	benchFile       string // measure, and write the results there
	benchBoot       bool   // boots, rather than starts
	rows            string // of them
	rounds          int
	dir             string // build/
	zos             string // path of the zos command
	steps           steps

	run1                      string // dir of this run
	root                      string // trust root
	ledgerURL, mirrorURL      string
	ledger, mirror, node      *server
	gatewayPort               int
	roots                     map[string]string // image to verity root
	build                     buildInfo
	history                   historyInfo
	consolePath, envelopePath string
	accel                     string
	warnings                  []string // that children said, each once
	locked                    *os.File
}

// buildInfo is the part of build.json that the summary shows.
type buildInfo struct {
	Hypervisor struct {
		Name, Version, Source string
		Path                  string
	} `json:"hypervisor"`
	Cmdline string `json:"cmdline"`
	Files   map[string]struct {
		Size   int64  `json:"size"`
		Digest string `json:"digest"`
	} `json:"files"`
	Programs map[string]struct {
		Size int64 `json:"size"`
	} `json:"programs"`
}

// step is one of the steps, with its name for people.
type step struct {
	name string
	f    func(context.Context) ([]string, error)
}

// Ports on loopback that are tried first.
const (
	ledgerPort = 8470
	mirrorPort = 8480
)

// images of the example, in the order in which they are made.
var images = []string{"app", "web"}

func (c *chain) path(parts ...string) string {
	return filepath.Join(append([]string{c.dir}, parts...)...)
}

func (c *chain) run(ctx context.Context) error {
	c.run1 = c.path("run")
	b := &bench{chain: c}
	build := c.buildNode
	if c.benchFile != "" {
		build = b.image
	}
	// The servers come before the image: the seed on it tells where they are.
	todo := []step{{"trust: keys, policy and ledger", c.makeTrust}}
	if !c.imageOnly {
		todo = append(todo, step{"ledger and mirror on loopback", c.startServers})
	}
	if c.benchFile == "" || !c.benchBoot {
		todo = append(todo, step{"node image: kernel, init, agent, hypervisor", build})
	}
	switch {
	case c.imageOnly:
	case c.benchFile != "" && c.benchBoot:
		todo = append(todo, (&bootBench{bench: b}).steps()...)
	case c.benchFile != "":
		todo = append(todo,
			step{"OCI images: app and web", c.makeImages},
			step{"Zero-Images, twice", c.convertImages})
		todo = append(todo, b.steps()...)
	default:
		todo = append(todo,
			step{"OCI images: app and web", c.makeImages},
			step{"Zero-Images, twice", c.convertImages},
			step{"render and check examples/shop/app.yaml", c.render},
			step{"sign: author, and two of security", c.sign},
			step{"submit to the ledger", c.submit},
			step{"boot the node in QEMU", c.boot},
			step{"wait for the deployment to run", c.wait},
			step{"fetch the page through the gateway", c.fetch},
			step{"history", c.showHistory},
			step{"audit, offline", c.audit},
		)
	}
	c.steps.total = len(todo)
	for _, s := range todo {
		if err := c.steps.do(ctx, s.name, s.f); err != nil {
			return errors.Join(c.because(ctx, err), b.end())
		}
	}
	if err := b.end(); err != nil {
		return err
	}
	c.summary()
	if c.imageOnly || c.benchFile != "" || !c.stay {
		return nil
	}
	c.lookAround()
	<-ctx.Done()
	return nil
}

// because finds the server whose end explains a failure: what depends on it
// only says that it cannot be reached.
func (c *chain) because(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return err
	}
	for _, s := range []*server{c.ledger, c.mirror} {
		if !s.gone() {
			continue
		}
		if c.node != nil {
			c.node.goodbye = orphanGoodbye
		}
		return &problem{what: s.name + " has ended meanwhile", expected: "a server that runs until this one stops it", todo: "read " + s.log,
			err: fmt.Errorf("%w\n%s\nso that %w", orExit(s.err), tailFile(s.log, 10), err)}
	}
	return err
}

// close ends what runs, the node first: it depends on the others.
func (c *chain) close() {
	for _, s := range []*server{c.node, c.mirror, c.ledger} {
		s.stop()
	}
}

// lock keeps a second run from wiping what this one uses. The lock ends with
// the process.
func (c *chain) lock() error {
	if c.locked != nil {
		return nil
	}
	if err := os.MkdirAll(c.dir, 0o755); err != nil {
		return fmt.Errorf("build folder: %w", err)
	}
	f, err := os.OpenFile(c.path("run.lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return fmt.Errorf("lock: %w", err)
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return errors.Join(&problem{what: "another run uses " + c.run1, expected: "one run at a time",
			todo: "end the other one (Ctrl-C in its terminal), or wait for it", err: err}, f.Close())
	}
	c.locked = f
	return nil
}

// makeTrust makes fresh keys and an empty ledger: every run is the first day.
func (c *chain) makeTrust(ctx context.Context) ([]string, error) {
	if err := c.lock(); err != nil {
		return nil, err
	}
	if err := os.RemoveAll(c.run1); err != nil {
		return nil, fmt.Errorf("clear the last run: %w", err)
	}
	keys := filepath.Join(c.run1, "keys")
	if err := os.MkdirAll(keys, 0o700); err != nil {
		return nil, fmt.Errorf("folder for keys: %w", err)
	}
	for _, k := range []string{"root", "author", "security1", "security2", "operator"} {
		if _, err := c.command(ctx, "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", k, "-f", filepath.Join(keys, k)); err != nil {
			return nil, err
		}
	}
	pub := func(k string) string { return filepath.Join(keys, k+".pub") }
	ledger := filepath.Join(c.run1, "ledger")
	_, err := c.command(ctx, c.zos, "ledger", "init", ledger, "--origin", "zos.example/demo",
		"--role", "root="+pub("root")+":1",
		"--role", "author="+pub("author")+":1",
		"--role", "security="+pub("security1")+","+pub("security2")+":2",
		"--role", "operator="+pub("operator")+":1",
		"--require", "root=root", "--require", "deployment=author,security", "--require", "stop=author", "--require", "voucher=operator",
		"--root-key", filepath.Join(keys, "root"))
	if err != nil {
		return nil, err
	}
	c.root = filepath.Join(ledger, "root.json")
	_, err = c.command(ctx, c.zos, "ledger", "voucher", "--key", filepath.Join(keys, "operator"), "--root", c.root,
		"--uses", "4", "--label", "site=demo", "-o", filepath.Join(c.run1, "voucher.json"))
	if err != nil {
		return nil, err
	}
	return []string{"5 keys in " + keys, "policy: a deployment needs author 1 of 1 and security 2 of 2"}, nil
}

func (c *chain) buildNode(ctx context.Context) ([]string, error) {
	out := c.path("images", boards.NameOf(c.board))
	args := []string{"node", "build", "--board", c.board, "--root", c.root, "-o", out}
	if !c.imageOnly {
		seed, err := c.makeSeed(ctx)
		if err != nil {
			return nil, err
		}
		args = append(args, "--seed", seed)
	}
	if c.signKeys != "" {
		args = append(args, "--keys", c.signKeys)
	}
	if c.version != "" {
		args = append(args, "--version", c.version)
	}
	if _, err := c.command(ctx, c.zos, args...); err != nil {
		return nil, err
	}
	if err := c.loadBuild(out); err != nil {
		return nil, err
	}
	notes := []string{fmt.Sprintf("hypervisor: %s %s (%s)", c.build.Hypervisor.Name, c.build.Hypervisor.Version, c.build.Hypervisor.Source)}
	for _, f := range []string{"node.uki", "node.img"} {
		notes = append(notes, fmt.Sprintf("%-9s %6.1f MB  %s", f, float64(c.build.Files[f].Size)/1e6, c.build.Files[f].Digest))
	}
	return notes, nil
}

func (c *chain) loadBuild(dir string) error {
	b, err := os.ReadFile(filepath.Join(dir, "build.json"))
	if err != nil {
		return fmt.Errorf("what was built: %w", err)
	}
	if err := json.Unmarshal(b, &c.build); err != nil {
		return fmt.Errorf("decode build.json: %w", err)
	}
	return nil
}

// makeSeed says on the boot partition where ledger and mirror are. Inside,
// 10.0.2.2 is the loopback of this machine.
func (c *chain) makeSeed(ctx context.Context) (string, error) {
	inside := func(url string) string { return strings.Replace(url, "127.0.0.1", "10.0.2.2", 1) }
	seed := filepath.Join(c.run1, "seed.json")
	_, err := c.command(ctx, c.zos, "node", "seed", "--name", "node-1", "--ledger", inside(c.ledgerURL), "--mirror", inside(c.mirrorURL),
		"--voucher", filepath.Join(c.run1, "voucher.json"), "-o", seed)
	return seed, err
}

var listening = regexp.MustCompile(`(http://127\.0\.0\.1:\d+)`)

func (c *chain) startServers(ctx context.Context) (notes []string, err error) {
	if c.ledger, c.ledgerURL, err = c.startOn(ctx, ledgerPort, "ledger", "ledger", "serve", filepath.Join(c.run1, "ledger")); err != nil {
		return nil, err
	}
	store := c.path("store")
	if err := os.MkdirAll(store, 0o755); err != nil {
		return nil, fmt.Errorf("chunk store: %w", err)
	}
	if c.mirror, c.mirrorURL, err = c.startOn(ctx, mirrorPort, "mirror", "image", "serve", store); err != nil {
		return nil, err
	}
	return []string{"ledger " + c.ledgerURL, "mirror " + c.mirrorURL}, nil
}

// startOn starts a server of zos on a port, or on a free one if that is
// taken, and returns the address that it says it listens on: between a probe
// and the server's own start somebody else may take a port.
func (c *chain) startOn(ctx context.Context, port int, name string, args ...string) (s *server, url string, err error) {
	for _, p := range []int{port, 0} {
		var m []string
		s, m, err = startServer(ctx, filepath.Join(c.run1, name+".log"), sign{listening, "the " + name + " says at which address it listens"}, 30*time.Second,
			c.zos, append(slices.Clone(args), "--listen", fmt.Sprintf("127.0.0.1:%d", p))...)
		if err == nil {
			return s, m[1], nil
		}
		if !portTaken(err) {
			break
		}
	}
	return nil, "", err
}

func (c *chain) makeImages(ctx context.Context) ([]string, error) {
	out, err := c.command(ctx, "go", "run", "./examples/shop/mkimages", "-o", c.path("oci"))
	return []string{out}, err
}

// convertImages converts every image into the mirror's store and once more
// into an empty one: the same input has to give the same root.
func (c *chain) convertImages(ctx context.Context) ([]string, error) {
	again := filepath.Join(c.run1, "again")
	c.roots = map[string]string{}
	var notes []string
	for _, name := range images {
		var got [2]struct {
			ID         string `json:"id"`
			VerityRoot string `json:"verityRoot"`
		}
		for i, store := range []string{c.path("store"), again} {
			out, err := c.command(ctx, c.zos, "image", "convert", "oci:"+c.path("oci", name), "--store", store, "--json")
			if err != nil {
				return notes, err
			}
			if err := json.Unmarshal([]byte(out), &got[i]); err != nil {
				return notes, fmt.Errorf("decode what convert said: %w", err)
			}
		}
		if got[0] != got[1] {
			return notes, &problem{what: "converting " + name + " twice gave two images", expected: "the same image id and verity root",
				todo: "this is a fault of zos: keep " + c.path("oci", name) + " and report it", err: fmt.Errorf("%+v and %+v", got[0], got[1])}
		}
		c.roots[name] = got[0].VerityRoot
		notes = append(notes, fmt.Sprintf("%-4s %s  verity root %s  (twice the same)", name, got[0].ID, got[0].VerityRoot))
	}
	if err := os.RemoveAll(again); err != nil {
		return notes, fmt.Errorf("remove the second conversion: %w", err)
	}
	for _, f := range []string{"vmlinuz", "initramfs.cpio"} {
		if _, err := c.command(ctx, c.zos, "image", "blob", c.path("guest", f), "--store", c.path("store")); err != nil {
			return notes, err
		}
	}
	return notes, nil
}

func (c *chain) render(ctx context.Context) ([]string, error) {
	spec := filepath.Join(c.run1, "shop.spec.json")
	if _, err := c.command(ctx, c.zos, "render", "examples/shop/app.yaml", "--store", c.path("store"), "-o", spec); err != nil {
		return nil, err
	}
	out, err := c.command(ctx, c.zos, "check", spec)
	return []string{out}, err
}

func (c *chain) sign(ctx context.Context) ([]string, error) {
	c.envelopePath = filepath.Join(c.run1, "shop.envelope.json")
	if err := c.signAs(ctx, filepath.Join(c.run1, "shop.spec.json"), c.envelopePath); err != nil {
		return nil, err
	}
	out, err := c.command(ctx, c.zos, "verify", c.envelopePath, "--root", c.root)
	return []string{out}, err
}

// signAs signs a spec with the three keys of the two roles.
func (c *chain) signAs(ctx context.Context, in, out string) error {
	for _, k := range []struct{ key, role string }{{"author", "author"}, {"security1", "security"}, {"security2", "security"}} {
		if _, err := c.command(ctx, c.zos, "sign", "--key", filepath.Join(c.run1, "keys", k.key), "--role", k.role, "--root", c.root, in, "-o", out); err != nil {
			return err
		}
		in = out
	}
	return nil
}

func (c *chain) submit(ctx context.Context) ([]string, error) {
	index, err := c.submitFile(ctx, c.envelopePath)
	return []string{fmt.Sprintf("receipt: log index %d", index)}, err
}

// submitFile returns the log index of the receipt.
func (c *chain) submitFile(ctx context.Context, envelope string) (int64, error) {
	out, err := c.command(ctx, c.zos, "submit", "--ledger", c.ledgerURL, "--root", c.root, "--json", envelope)
	if err != nil {
		return 0, err
	}
	var r struct {
		Index int64 `json:"index"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return 0, fmt.Errorf("decode the receipt: %w", err)
	}
	return r.Index, nil
}
