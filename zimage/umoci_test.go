// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"compress/gzip"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestUmociAgrees compares each corner, as the kernel sees it, with the tree
// that umoci unpacks from the same OCI layout.
func TestUmociAgrees(t *testing.T) {
	const skip = "SKIP TestUmociAgrees: "
	if os.Geteuid() != 0 {
		t.Skip(skip + "owners and mounting need root")
	}
	if _, err := exec.LookPath("umoci"); err != nil {
		t.Skip(skip + "no umoci (package umoci)")
	}
	cannot := map[string]string{ // what umoci 0.4.7 does not do; GNU tar is the judge there
		"extended attributes":                    "drops attributes without a value",
		"attributes that fill more than a block": "the file system that it unpacks to has no room for them",
		"modes of symlinks":                      "makes all of them 0777, as Linux has them",
		"a global header":                        "does not know such an entry",
		"sparse files of GNU's old form":         "does not know such an entry",
		"a contiguous file":                      "does not know such an entry",
	}
	compareWith := func(name string, tars [][]byte) {
		t.Run(name, func(t *testing.T) {
			if why := cannot[name]; why != "" {
				t.Skipf("%s/%s: umoci %s", skip[:len(skip)-2], name, why)
			}
			img := &plain{tars: tars}
			dir := img.layout(t)
			bundle := filepath.Join(t.TempDir(), "bundle")
			if out, err := exec.Command("umoci", "unpack", "--image", dir+":latest", bundle).CombinedOutput(); err != nil {
				t.Fatalf("umoci: %v: %s", err, out)
			}
			untimed := unnamedDirs(t, tars)
			compare(t, mounted(t, skip, img.memory, untimed), describe(t, filepath.Join(bundle, "rootfs"), untimed))
		})
	}
	if layers := packageLayers(t, skip); layers != nil {
		compareWith("Debian's packages", layers)
	}
	for _, c := range corners() {
		compareWith(c.name, c.tars(t))
	}
	for _, c := range rawCorners() {
		compareWith(c.name, [][]byte{c.tar})
	}
}

// packageLayers gives what the smaller ones of Debian's packages unpack to that
// zos itself is built from, each as a layer: names, links, owners and times of
// a real system. None is here before the first build.
func packageLayers(t *testing.T, skip string) (layers [][]byte) {
	t.Helper()
	debs, err := filepath.Glob("../build/cache/debian/deb/*.deb")
	if err != nil {
		t.Fatal(err)
	}
	for _, deb := range debs {
		if info, err := os.Stat(deb); err != nil || info.Size() > 200<<10 || len(layers) == 30 {
			continue
		}
		b, err := exec.Command("dpkg-deb", "--fsys-tarfile", deb).Output()
		if err != nil {
			t.Log(skip + "packages of Debian as layers: no dpkg-deb")
			return nil
		}
		layers = append(layers, b)
	}
	if len(layers) < 10 {
		t.Log(skip + "packages of Debian as layers: they are not in build/cache yet")
		return nil
	}
	return layers
}

// plain is an image of gzip layers, which umoci knows, that can be written
// as an OCI layout.
type plain struct {
	*memory
	tars [][]byte
}

// layout writes the image into a folder.
func (p *plain) layout(t *testing.T) string {
	t.Helper()
	p.memory = &memory{blobs: map[string][]byte{}}
	typed := func(b []byte, mediaType string) map[string]any {
		d := p.put(b)
		d["mediaType"] = mediaType
		return d
	}
	layers, diffIDs := []any{}, []string{}
	for _, b := range p.tars {
		var wire bytes.Buffer
		z := gzip.NewWriter(&wire)
		if _, err := z.Write(b); err != nil {
			t.Fatal(err)
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		diffIDs = append(diffIDs, digestOf(b))
		layers = append(layers, typed(wire.Bytes(), "application/vnd.oci.image.layer.v1.tar+gzip"))
	}
	cfg := mustJSON(t, map[string]any{"architecture": "amd64", "os": "linux", "config": map[string]any{},
		"rootfs": map[string]any{"type": "layers", "diff_ids": diffIDs}})
	p.manifest = mustJSON(t, map[string]any{"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
		"config": typed(cfg, "application/vnd.oci.image.config.v1+json"), "layers": layers})
	top := typed(p.manifest, "application/vnd.oci.image.manifest.v1+json")
	top["annotations"] = map[string]string{"org.opencontainers.image.ref.name": "latest"}

	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "blobs", "sha256"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`))
	put(t, filepath.Join(dir, "index.json"), mustJSON(t, map[string]any{"schemaVersion": 2, "manifests": []any{top}}))
	for digest := range p.blobs {
		r, err := p.Blob(context.Background(), digest)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		put(t, filepath.Join(dir, "blobs", "sha256", strings.TrimPrefix(digest, "sha256:")), b)
	}
	return dir
}
