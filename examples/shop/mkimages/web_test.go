// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"go.yaml.in/yaml/v4"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/render"
)

const appYAML = "../app.yaml"

// TestNginxServes unpacks the web image into a folder and runs its nginx in
// there, as www-data, with the configuration of app.yaml: only ports and the
// address of app are others.
func TestNginxServes(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOARCH != "amd64" {
		t.Skip("SKIP TestNginxServes: chroot needs root, and the image's architecture")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	debs, err := packages(ctx, "../../../build/cache/debian", filepath.Join(t.TempDir(), "web.lock"), "amd64", false, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	img, err := webTree(ctx, debs)
	if err != nil {
		t.Fatal(err)
	}
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if _, err := io.WriteString(w, "app speaks"); err != nil {
			t.Error(err)
		}
	}))
	defer app.Close()
	port := freePort(t)
	conf := nginxConf(t)
	conf = strings.Replace(conf, "listen 80;", "listen 127.0.0.1:"+port+";", 1)
	conf = strings.Replace(conf, "http://app:8080", app.URL, 1)
	img.file("/etc/nginx/nginx.conf", 0o644, []byte(conf))
	root := t.TempDir()
	unpackInto(t, img, root)
	// What the mounts of app.yaml give the user www-data:
	if err := os.Chown(filepath.Join(root, "run"), wwwData, wwwData); err != nil {
		t.Fatal(err)
	}

	cmd := exec.CommandContext(ctx, "/usr/sbin/nginx", "-e", "stderr", "-g", "daemon off;")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Chroot: root, Credential: &syscall.Credential{Uid: wwwData, Gid: wwwData}, Pdeathsig: syscall.SIGKILL}
	cmd.Dir, cmd.Env = "/", []string{"PATH=/usr/sbin:/usr/bin"}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines, started := bufio.NewScanner(stderr), false
	var said []string
	for !started && lines.Scan() {
		said = append(said, lines.Text())
		started = strings.Contains(lines.Text(), "start worker process ")
	}
	if !started {
		t.Fatalf("nginx did not start: %v: %q", cmd.Wait(), said)
	}
	for path, want := range map[string]string{"/healthz": "ok\n", "/": "app speaks"} {
		resp, err := http.Get("http://127.0.0.1:" + port + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || resp.StatusCode != http.StatusOK || string(b) != want || !strings.HasPrefix(resp.Header.Get("Server"), "nginx") {
			t.Errorf("%s: %v %s %q from %q", path, err, resp.Status, b, resp.Header.Get("Server"))
		}
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	for lines.Scan() {
		said = append(said, lines.Text())
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("nginx ended with %v: %q", err, said)
	}
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}

// nginxConf is the configuration in the author's document.
func nginxConf(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(appYAML)
	if err != nil {
		t.Fatal(err)
	}
	var doc struct {
		Machines []struct {
			Files []struct{ Path, Content string }
		}
	}
	if err := yaml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	for _, m := range doc.Machines {
		for _, f := range m.Files {
			if f.Path == "/etc/nginx/nginx.conf" {
				return f.Content
			}
		}
	}
	t.Fatal("app.yaml has no nginx.conf")
	return ""
}

func unpackInto(t *testing.T, img tree, root string) {
	t.Helper()
	b, err := img.tar()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("tar", "-x", "-p", "--numeric-owner", "-C", root)
	cmd.Stdin = bytes.NewReader(b)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("tar: %v: %s", err, out)
	}
	for _, dir := range []string{root, filepath.Dir(root)} { // www-data has to get there
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
}

// pretend resolves everything to digests that name nothing.
type pretend struct{ t *testing.T }

func (p pretend) File(ref string) (string, error) { return "sha256:" + strings.Repeat("a", 64), nil }

func (p pretend) Image(ref, platform string) (render.ResolvedImage, error) {
	d := "sha256:" + strings.Repeat("b", 64)
	return render.ResolvedImage{
		Image: spec.Image{OCI: d, Platform: platform, ID: d, VerityRoot: strings.Repeat("c", 64)},
		Args:  []string{"/app"}, User: "0:0",
	}, nil
}

// TestSpecRenders holds that the example is a valid deployment.
func TestSpecRenders(t *testing.T) {
	b, err := os.ReadFile(appYAML)
	if err != nil {
		t.Fatal(err)
	}
	out, err := render.Deployment(b, pretend{t})
	if err != nil {
		t.Fatal(err)
	}
	d, err := spec.Decode(out)
	if err != nil {
		t.Fatal(err)
	}
	if d.Metadata.Name != "shop" || len(d.Machines) != 2 || d.Gateways[0].Port != 8000 || d.Gateways[0].TargetPort != 80 {
		t.Errorf("it renders to %s", out)
	}
}

func TestImageIsDeterministic(t *testing.T) {
	build := func() string {
		web := tree{}
		web.file("/b/c", 0o644, []byte("c"))
		web.symlink("/a", "b")
		img, err := image(web, "amd64", v1.Config{User: "1:1"})
		if err != nil {
			t.Fatal(err)
		}
		dir := filepath.Join(t.TempDir(), "oci")
		for range 2 { // replacing is writing
			if _, err := write(dir, img, "amd64"); err != nil {
				t.Fatal(err)
			}
		}
		d, err := img.Digest()
		if err != nil {
			t.Fatal(err)
		}
		index, err := os.ReadFile(filepath.Join(dir, "index.json"))
		if err != nil || !strings.Contains(string(index), d.String()) {
			t.Errorf("%v: %s does not name %s", err, index, d)
		}
		return d.String() + string(index)
	}
	if a, b := build(), build(); a != b {
		t.Errorf("%s and %s", a, b)
	}
}

func TestCheckFindsWhatIsWrong(t *testing.T) {
	web := tree{}
	web.file("/usr/bin/sh", 0o755, []byte("#!"))
	err := web.check()
	for _, want := range []string{"/usr/bin/sh must not", "no /usr/sbin/nginx"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v does not say %q", err, want)
		}
	}
	if err := web.unpack("/dev/x", &tar.Header{Typeflag: tar.TypeChar}, nil); err == nil {
		t.Error("a device is taken")
	}
}

func TestDepends(t *testing.T) {
	got := fmt.Sprint(depends("libc6 (>= 2.34), a:any | b, debconf (>= 0.5) | debconf-2.0, iproute2,, c [amd64]"))
	if got != "[libc6 a c]" {
		t.Errorf("got %s", got)
	}
}
