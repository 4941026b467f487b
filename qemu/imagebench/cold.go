// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/publish"
)

// program is what an image is started with: it writes something first, and
// then answers on a port, or ends.
type program struct {
	argv []string
	port int  // where it answers; 0 is never
	sql  bool // it answers PostgreSQL's protocol there, else HTTP
}

// health is what inRoot asks: "http:8899", "sql:8899", or "" for nothing.
func (p program) health() string {
	switch {
	case p.port == 0:
		return ""
	case p.sql:
		return fmt.Sprint("sql:", p.port)
	}
	return fmt.Sprint("http:", p.port)
}

// programs by image. Each loads much of what its image is for.
func programs() map[string]program {
	const python = `import numpy, http.server
print("here", flush=True)
http.server.HTTPServer(("127.0.0.1", 8899), http.server.SimpleHTTPRequestHandler).serve_forever()`
	// A database is made at the start, as the entry point of PostgreSQL's own
	// image does on an empty volume.
	const bin, data = "/usr/lib/postgresql/17/bin/", "/var/data"
	const postgres = bin + "initdb -D " + data + " -U postgres --locale=C --no-sync && exec " + bin + "postgres -D " + data + " -h 127.0.0.1 -p 8899 -k /tmp"
	return map[string]program{
		"static":   {argv: []string{"/bin/busybox", "sh", "-c", "echo here; exec /bin/busybox httpd -f -p 127.0.0.1:8899 -h /"}, port: 8899},
		"nginx":    {argv: []string{"/usr/sbin/nginx", "-e", "stderr", "-c", "/run/nginx.conf", "-g", "daemon off;"}, port: 8899},
		"python":   {argv: []string{"/usr/bin/python3", "-c", python}, port: 8899},
		"postgres": {argv: []string{"/bin/sh", "-c", postgres}, port: 8899, sql: true},
		"large":    {argv: []string{"/usr/lib/jvm/java-21-openjdk-amd64/bin/java", "-m", "jdk.httpserver", "-b", "127.0.0.1", "-p", "8899", "-d", "/usr/share"}, port: 8899},
	}
}

const nginxConf = `error_log stderr notice; pid /run/nginx.pid; events {} http { access_log off; server { listen 127.0.0.1:8899; root /usr/share/nginx/html; } }`

// answer is when a cold start had what.
type answer struct {
	output, health time.Duration
	bytes          int64 // down the line until the first output
	all            int64 // until the end
}

const coldRow = "cold start over a shaped link"

// cold measures the start of a program from an image that is only on the
// other end of a line, against a copy and an unpacking of all of it.
//
// Neither side has a VM: what differs is how the files come. Ours is read
// through the image server and the kernel's EROFS, but without dm-verity where
// this kernel has none, as in a guest's.
func (b *bench) cold(ctx context.Context, m made) error {
	p, known := programs()[m.Name]
	if !known {
		return nil
	}
	for _, tool := range []string{"umoci", "skopeo"} {
		if _, err := exec.LookPath(tool); err != nil {
			b.cannot(coldRow, ">= 5", m, "no "+tool)
			return nil
		}
	}
	if err := imaged.Available(); err != nil {
		b.cannot(coldRow, ">= 5", m, err.Error())
		return nil
	}
	c, err := b.coldSide(ctx, m)
	if err != nil {
		return err
	}
	defer c.close()
	const than = "skopeo copy + umoci unpack + start"
	kinds := []*kind{{name: ""}, {name: " along a trace"}, {name: " with a start pack"}}
	for range b.rounds {
		var trace extent.List
		for i, k := range kinds {
			withPack := i == 2
			if err := c.pack(ctx, trace, withPack); err != nil {
				return err
			}
			a, read, err := c.ours(ctx, p, trace)
			if err != nil {
				return err
			}
			if i == 0 {
				trace = read
			}
			k.answers = append(k.answers, a)
		}
		theirs, err := c.theirs(ctx, p)
		if err != nil {
			return err
		}
		for _, k := range kinds {
			k.theirs = append(k.theirs, theirs)
		}
	}
	for _, k := range kinds {
		output := row{What: "cold start" + k.name + ", first output", Than: than, Image: m.Name, Goal: ">= 5"}
		health := row{What: "cold start" + k.name + ", first healthy answer", Than: than, Image: m.Name, Goal: ">= 5"}
		share := row{What: "bytes before the first output" + k.name, Than: "the image on the wire", Image: m.Name, Goal: "<= 0.10", Theirs: c.wire}
		for i, a := range k.answers {
			output.OursMs, output.TheirsMs = append(output.OursMs, a.output.Milliseconds()), append(output.TheirsMs, k.theirs[i].output.Milliseconds())
			health.OursMs, health.TheirsMs = append(health.OursMs, a.health.Milliseconds()), append(health.TheirsMs, k.theirs[i].health.Milliseconds())
			share.Ours = max(share.Ours, a.bytes)
		}
		rows := []row{output}
		if p.port != 0 {
			rows = append(rows, health)
		}
		for _, r := range rows {
			r.Ratio = float64(median(r.TheirsMs)) / float64(max(median(r.OursMs), 1))
			r.Holds = r.Ratio >= 5
			b.add(r)
		}
		share.Ratio = float64(share.Ours) / float64(max(share.Theirs, 1))
		share.Holds = share.Ratio <= 0.10
		b.add(share)
	}
	return b.fresh()
}

// kind is a way to start, with what became of it by round.
type kind struct {
	name            string
	answers, theirs []answer
}

// side is both servers behind lines of their own. What it knows of the image
// itself is for the start pack and the bytes on the wire: a start fetches its own.
type side struct {
	b        *bench
	m        zimage.Manifest
	id       string
	store    *zimage.Store
	wire     int64 // bytes of all chunks as they are sent
	mirror   *link
	registry *link
	stop     []func()
	starts   int // each has a folder of its own, see fresh
}

func (c *side) folder() string {
	c.starts++
	return c.b.path("work", fmt.Sprint("start-", c.starts))
}

func (b *bench) coldSide(ctx context.Context, m made) (c *side, err error) {
	c = &side{b: b}
	defer func() {
		if err != nil {
			c.close()
		}
	}()
	work := b.path("work")
	if err := b.fresh(); err != nil {
		return nil, err
	}
	p, err := run(ctx, b.zos, "image", "convert", "oci:"+m.layout, "--store", filepath.Join(work, "store"), "--json")
	if err != nil {
		return nil, err
	}
	var made struct{ ID string }
	if err := json.Unmarshal(p.out, &made); err != nil {
		return nil, err
	}
	c.id = made.ID
	if c.store, err = zimage.OpenStore(filepath.Join(work, "store")); err != nil {
		return nil, err
	}
	store := c.store
	if c.m, err = store.Manifest(c.id); err != nil {
		return nil, err
	}
	seen := map[string]bool{}
	for _, chunk := range c.m.Chunks {
		if seen[chunk.ID] {
			continue
		}
		seen[chunk.ID] = true
		o, err := store.ChunkObject(chunk)
		if err != nil {
			return nil, err
		}
		c.wire += o.Size
	}
	if c.mirror, err = c.serve(zimage.Handler(store)); err != nil {
		return nil, err
	}
	if c.registry, err = c.serve(registry.New(registry.Logger(log.New(io.Discard, "", 0)))); err != nil {
		return nil, err
	}
	// Into the registry past the line.
	_, err = run(ctx, "skopeo", "copy", "--dest-tls-verify=false", "oci:"+m.layout+":latest", "docker://"+c.registry.to+"/bench:latest")
	return c, err
}

// pack has the mirror serve a start pack of what a start has read, or none.
func (c *side) pack(ctx context.Context, start extent.List, want bool) error {
	if !want {
		return os.RemoveAll(filepath.Join(c.store.Dir(), "starts"))
	}
	r, made, err := publish.StartPack(ctx, c.store, c.id, start, publish.Folder(c.store.Dir()), nil)
	if err != nil {
		return err
	}
	fmt.Printf("   start pack: %d blocks, %d of them hashes, %d bytes: %.4f of the image\n", made.Blocks, made.Hashes, r.SentBytes, float64(r.SentBytes)/float64(c.wire))
	return nil
}

// serve has a handler listen behind a line.
func (c *side) serve(h http.Handler) (*link, error) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	srv := &http.Server{Handler: h}
	go srv.Serve(ln) // ends with close
	l, err := newLink(ln.Addr().String())
	if err != nil {
		return nil, errors.Join(err, srv.Close())
	}
	c.stop = append(c.stop, func() { l.close(); srv.Close() }) // nobody asks any more
	return l, nil
}

func (c *side) close() {
	for _, f := range c.stop {
		f()
	}
}

// ours starts from a served image. It gives what was read until the first
// healthy answer, or else the output, as the next start's trace.
func (c *side) ours(ctx context.Context, p program, trace extent.List) (a answer, read extent.List, err error) {
	dir := c.folder()
	root := filepath.Join(dir, "root")
	if err := os.MkdirAll(root, 0o755); err != nil {
		return a, nil, err
	}
	quiet := slog.New(slog.DiscardHandler)
	l := &imaged.Launcher{Dir: filepath.Join(dir, "served"), Program: c.b.self, Mirrors: []string{"http://" + c.mirror.addr()}, Deadline: time.Minute, Log: quiet, Start: startServer}
	before := c.mirror.bytes.Load()
	begin := time.Now()
	m, ahead, err := c.manifest(ctx)
	if err != nil {
		return a, nil, err
	}
	s, err := l.ServeBeside(ctx, m, c.id, filepath.Join(dir, "whole.img"), trace, imaged.Near{Pack: ahead})
	if err != nil {
		return a, nil, err
	}
	defer func() { err = errors.Join(err, s.Kill(context.Background())) }()
	if err := s.Ready(ctx); err != nil {
		return a, nil, err
	}
	unmount, err := mountLike(ctx, s.Path(), root, c.b.ahead)
	defer func() { err = errors.Join(err, unmount()) }()
	if err != nil {
		return a, nil, err
	}
	a, err = start(ctx, root, p, begin, func() int64 { return c.mirror.bytes.Load() - before })
	if err != nil {
		return a, nil, err
	}
	const told = time.Second // the server says what was read twice in that time
	time.Sleep(told)
	return a, s.Read(), nil
}

// manifest brings the image's manifest down the line, as the agent does before it
// has a server started, and asks for its start pack meanwhile, over connections of
// its own.
func (c *side) manifest(ctx context.Context) (zimage.Manifest, *zimage.PackAhead, error) {
	t := http.DefaultTransport.(*http.Transport).Clone()
	defer t.CloseIdleConnections()
	t.Proxy = nil
	f := zimage.Fetcher{Mirrors: []string{"http://" + c.mirror.addr()}, HTTP: &http.Client{Transport: t}}
	return f.ManifestAhead(ctx, c.id)
}

// theirs copies, unpacks and starts.
func (c *side) theirs(ctx context.Context, p program) (answer, error) {
	dir := c.folder()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return answer{}, err
	}
	before := c.registry.bytes.Load()
	begin := time.Now()
	for _, argv := range [][]string{
		{"skopeo", "copy", "--src-tls-verify=false", "docker://" + c.registry.addr() + "/bench:latest", "oci:" + filepath.Join(dir, "oci") + ":latest"},
		{"umoci", "unpack", "--image", filepath.Join(dir, "oci") + ":latest", filepath.Join(dir, "bundle")},
	} {
		if _, err := run(ctx, argv...); err != nil {
			return answer{}, err
		}
	}
	return start(ctx, filepath.Join(dir, "bundle", "rootfs"), p, begin, func() int64 { return c.registry.bytes.Load() - before })
}

// start runs a program in a root, in namespaces of its own, with folders to
// write to, and waits for its first output and its first answer.
func start(ctx context.Context, root string, p program, begin time.Time, sent func() int64) (a answer, err error) {
	self, err := os.Executable()
	if err != nil {
		return a, err
	}
	cmd := exec.CommandContext(ctx, self, append([]string{chrootTask, root, p.health()}, p.argv...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWNET | unix.CLONE_NEWPID, Pdeathsig: unix.SIGKILL}
	r, w, err := os.Pipe()
	if err != nil {
		return a, err
	}
	defer r.Close() // only read
	cmd.Stdout, cmd.Stderr = w, w
	err = errors.Join(cmd.Start(), w.Close())
	if err != nil {
		return a, err
	}
	lines, all := bufio.NewReader(r), ""
	for a.health == 0 {
		line, err := lines.ReadString('\n')
		all += line
		if strings.HasPrefix(line, healthyLine) {
			a.health = time.Since(begin)
		} else if line != "" && a.output == 0 {
			a.output, a.bytes = time.Since(begin), sent()
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return a, err
		}
		if p.port == 0 && a.output != 0 {
			break
		}
	}
	a.all = sent()
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return a, err
	}
	if err := cmd.Wait(); a.output == 0 || p.port != 0 && a.health == 0 {
		return a, fmt.Errorf("%v: no output, or no answer: %w: %s", p.argv, err, tail(all))
	}
	return a, nil
}
