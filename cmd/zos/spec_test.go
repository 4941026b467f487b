// SPDX-License-Identifier: Apache-2.0

package main

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// cli runs the tool and checks its exit code.
func cli(t *testing.T, want int, args ...string) (stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	if got := run(context.Background(), args, &out, &errs); got != want {
		t.Fatalf("zos %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, out.String(), errs.String())
	}
	return out.String(), errs.String()
}

// says checks that a text has all parts.
func says(t *testing.T, text string, parts ...string) {
	t.Helper()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			t.Errorf("%q is not in:\n%s", p, text)
		}
	}
}

func put(t *testing.T, path, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func get(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// madeImage writes an OCI layout with one small image and converts it.
func madeImage(t *testing.T, dir string) (store string) {
	t.Helper()
	var layer bytes.Buffer
	w := tar.NewWriter(&layer)
	if err := w.WriteHeader(&tar.Header{Name: "bin/app", Typeflag: tar.TypeReg, Mode: 0o755, Size: 3}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("app")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(layer.Bytes())), nil })
	if err != nil {
		t.Fatal(err)
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		t.Fatal(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture = "linux", "amd64"
	cfg.Config = v1.Config{Entrypoint: []string{"/bin/app"}, Cmd: []string{"--serve"}, Env: []string{"A=1", "A=2"}, WorkingDir: "/bin", StopSignal: "SIGINT"}
	if img, err = mutate.ConfigFile(img, cfg); err != nil {
		t.Fatal(err)
	}
	p, err := layout.Write(filepath.Join(dir, "img"), empty.Index)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.AppendImage(img, layout.WithPlatform(v1.Platform{OS: "linux", Architecture: "amd64"})); err != nil {
		t.Fatal(err)
	}
	store = filepath.Join(dir, "store")
	s, err := zimage.OpenStore(store)
	if err != nil {
		t.Fatal(err)
	}
	src, err := oci.OpenSource("oci:" + filepath.Join(dir, "img"))
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if _, _, err := zimage.Convert(context.Background(), src, "linux/amd64", s, nil); err != nil {
		t.Fatal(err)
	}
	return store
}

const author = `metadata: {name: shop}
machines:
  - {name: app, kernel: "file:vmlinuz", initramfs: "file:initramfs", image: "oci:img"}
`

// TestRender goes from an author's document and a real image to a spec.
func TestRender(t *testing.T) {
	dir := t.TempDir()
	store := madeImage(t, dir)
	put(t, filepath.Join(dir, "vmlinuz"), "kernel")
	put(t, filepath.Join(dir, "initramfs"), "initramfs")
	app, out := put(t, filepath.Join(dir, "app.yaml"), author), filepath.Join(dir, "app.spec.json")

	text, _ := cli(t, exitOK, "render", app, "--store", store, "-o", out)
	first := get(t, out)
	d, err := spec.Decode(first)
	if err != nil {
		t.Fatal(err)
	}
	says(t, text, out, "deployment shop, version 1", spec.Digest(first), d.Machines[0].Image.VerityRoot, "runs /bin/app --serve as 0:0 in /bin")
	m := d.Machines[0]
	if m.Kernel != spec.Digest([]byte("kernel")) || m.Process.StopSignal != "SIGINT" || m.Process.Env["A"] != "2" {
		t.Errorf("rendered %+v", m)
	}
	if _, errs := cli(t, exitOK, "render", app, "--store", store, "-o", out); errs != "" || !bytes.Equal(first, get(t, out)) {
		t.Errorf("the second run differs, or says %q", errs)
	}
	text, _ = cli(t, exitOK, "check", out)
	says(t, text, "deployment shop, version 1", m.Image.ID)

	// By digest, the store alone is asked: no registry is there.
	put(t, app, strings.Replace(author, "oci:img", "registry.invalid/app@"+m.Image.OCI, 1))
	cli(t, exitOK, "render", app, "--store", store, "-o", out)
	if !bytes.Equal(first, get(t, out)) {
		t.Error("another notation of the same image gives another spec")
	}
	// A mirror of the store gives the same, and the author hears whose word it is.
	opened, err := zimage.OpenStore(store)
	if err != nil {
		t.Fatal(err)
	}
	mirror := httptest.NewServer(zimage.Handler(opened))
	defer mirror.Close()
	_, errs := cli(t, exitOK, "render", app, "--store", mirror.URL, "-o", out)
	says(t, errs, mirror.URL+" says; convert it yourself")
	if !bytes.Equal(first, get(t, out)) {
		t.Error("a mirror gives another spec")
	}
	text, _ = cli(t, exitOK, "render", app, "--store", store, "-o", out, "--json")
	var result struct {
		Output, Digest string
		Spec           spec.Deployment
	}
	if err := json.Unmarshal([]byte(text), &result); err != nil || result.Output != out || result.Digest != spec.Digest(first) || result.Spec.Metadata.Name != "shop" {
		t.Errorf("--json gives %s (%v)", text, err)
	}

	before := get(t, out)
	for name, c := range map[string]struct {
		code int
		doc  string
		args []string
		want string
	}{
		"unknown field":   {exitRefused, author + "extra: 1\n", nil, "extra: is an unknown field (line 4)"},
		"no store":        {exitUsage, author, []string{"--store", ""}, "give --store"},
		"store not there": {exitNotFound, author, []string{"--store", filepath.Join(dir, "nowhere")}, "chunk store"},
		"broken YAML":     {exitRefused, strings.Replace(author, "\n  - {", "\nplacement: {arch: amd64}\n  - {", 1), nil, "not valid YAML"},
		"no such image":   {exitNotFound, strings.Replace(author, "oci:img", "oci:nowhere", 1), nil, "machines[0].image"},
		"no such kernel":  {exitNotFound, strings.Replace(author, "file:vmlinuz", "file:nowhere", 1), nil, "machines[0].kernel"},
		"other platform":  {exitNotFound, author + "placement: {arch: arm64}\n", nil, "machines[0].image"},
	} {
		put(t, app, c.doc)
		_, errs := cli(t, c.code, append([]string{"render", app, "--store", store, "-o", out}, c.args...)...)
		if !strings.Contains(errs, c.want) {
			t.Errorf("%s: says %q, want %q", name, errs, c.want)
		}
		if !bytes.Equal(before, get(t, out)) {
			t.Fatalf("%s: a refusal has changed the file", name)
		}
	}
	empty := filepath.Join(dir, "empty")
	if err := os.Mkdir(empty, 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, app, author)
	_, errs = cli(t, exitNotFound, "render", app, "--store", empty, "-o", out)
	says(t, errs, "is not in the store", "zos image convert")
	if opened, err = zimage.OpenStore(empty); err != nil {
		t.Fatal(err)
	}
	bare := httptest.NewServer(zimage.Handler(opened))
	_, errs = cli(t, exitNotFound, "render", app, "--store", bare.URL, "-o", out)
	says(t, errs, "is not in the store "+bare.URL)
	bare.Close()
	_, errs = cli(t, exitUnreachable, "render", app, "--store", bare.URL, "-o", out)
	says(t, errs, bare.URL)

	// A hint that names another image's manifest.
	for _, e := range []struct {
		field string
		code  int
	}{{"verityRoot", exitRefused}, {"id", exitNotFound}} {
		lie(t, store, e.field)
		put(t, app, author)
		cli(t, e.code, "render", app, "--store", store, "-o", out)
	}
	cli(t, exitNotFound, "render", filepath.Join(dir, "nowhere.yaml"), "-o", out)
	cli(t, exitUsage, "render", app)
	cli(t, exitUsage, "render", "-o", out)
	cli(t, exitUsage, "render", app, "--frobnicate")
}

// lie changes what the store's only hint says.
func lie(t *testing.T, store, field string) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(store, "by-oci", "*.json"))
	if err != nil || len(names) != 1 {
		t.Fatalf("hints %v, %v", names, err)
	}
	var hint map[string]string
	if err := json.Unmarshal(get(t, names[0]), &hint); err != nil {
		t.Fatal(err)
	}
	other := "0"
	if strings.HasSuffix(hint[field], other) {
		other = "1"
	}
	hint[field] = hint[field][:len(hint[field])-1] + other
	b, err := json.Marshal(hint)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(names[0]); err != nil {
		t.Fatal(err)
	}
	put(t, names[0], string(b))
}

func TestDefaultsAreListed(t *testing.T) {
	text, _ := cli(t, exitOK, "render", "--defaults")
	says(t, text, "placement.onPartition", `"stop"`, "machines[].health.intervalMs", "when kind=none")
	text, _ = cli(t, exitOK, "render", "--defaults", "--json")
	var rows []map[string]string
	if err := json.Unmarshal([]byte(text), &rows); err != nil || len(rows) < 50 {
		t.Errorf("%d rows, %v", len(rows), err)
	}
}

func TestCheck(t *testing.T) {
	dir := t.TempDir()
	full, err := spectest.Full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	path := put(t, filepath.Join(dir, "spec.json"), string(full))
	text, _ := cli(t, exitOK, "check", path)
	says(t, text, "deployment shop, version 3", spec.Digest(full), "2 × amd64 with site=demo", "gateway    http  tcp port 8080 to web:80 over outer",
		"keeps CAP_NET_BIND_SERVICE", "volume data at /data", "beyond the policy: owner", "waits for app, web")
	// What is shown cannot be painted over by what is shown.
	put(t, path, strings.Replace(string(full), `"--listen"`, `"\u001b[2J\rrm -rf"`, 1))
	text, _ = cli(t, exitOK, "check", path)
	says(t, text, `runs app "\x1b[2J\rrm -rf" :8000 as 0:0`, "env HOME=/data", "cmdline console=ttyS0 quiet")
	if strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("control characters reach the terminal: %q", text)
	}
	painted := put(t, filepath.Join(dir, "\x1b[2J\rspec.json"), string(full))
	if text, _ = cli(t, exitOK, "check", painted); strings.ContainsAny(text, "\x1b\r") {
		t.Errorf("control characters of the file's name reach the terminal: %q", text)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"absent":    {`"replicas":2,`, ``, "placement.replicas: is absent"},
		"unknown":   {`"replicas":2`, `"replicas":2,"x":1`, "placement.x: is an unknown field"},
		"duplicate": {`"replicas":2`, `"replicas":2,"replicas":2`, "placement.replicas: is there twice"},
		"case":      {`"replicas"`, `"Replicas"`, "placement.Replicas: is an unknown field"},
		"float":     {`"replicas":2`, `"replicas":2.0`, "placement.replicas: is a float"},
		"tag":       {spectest.Digest("1"), "app:latest", "machines[0].image.oci: is a tag"},
	} {
		put(t, path, strings.Replace(string(full), c.old, c.new, 1))
		if _, errs := cli(t, exitRefused, "check", path); !strings.Contains(errs, path+": "+c.want) {
			t.Errorf("%s: says %q, want %q", name, errs, c.want)
		}
	}
	put(t, path, string(full)+"{}")
	_, errs := cli(t, exitRefused, "check", path, "--json")
	var refusal struct {
		Error string
		Exit  int
	}
	if err := json.Unmarshal([]byte(errs), &refusal); err != nil || refusal.Exit != exitRefused || !strings.Contains(refusal.Error, "trailing data") {
		t.Errorf("--json says %q", errs)
	}
	cli(t, exitNotFound, "check", filepath.Join(dir, "nowhere"))
	cli(t, exitUsage, "check")
}
