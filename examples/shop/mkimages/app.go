// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const (
	appPackage = "github.com/zos-node/zos/examples/shop/app"
	canarySize = 1 << 20
)

// appImage builds the service and puts it into an image.
func appImage(ctx context.Context, arch string) (img v1.Image, err error) {
	dir, err := os.MkdirTemp("", "mkimages-")
	if err != nil {
		return nil, fmt.Errorf("temporary folder: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	name := filepath.Join(dir, "app")
	cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", name, appPackage)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFLAGS=")
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("go build %s: %w: %s", appPackage, err, bytes.TrimSpace(out))
	}
	program, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read program: %w", err)
	}
	t := tree{}
	t.file("/app", 0o755, program)
	t.file("/data/canary", 0o444, canary())
	t.file("/etc/passwd", 0o644, []byte("root:x:0:0:root:/:/none\napp:x:1000:1000:app:/:/none\n"))
	t.file("/etc/group", 0o644, []byte("root:x:0:\napp:x:1000:\n"))
	return image(t, arch, v1.Config{Entrypoint: []string{"/app"}, User: "app", WorkingDir: "/", StopSignal: "SIGTERM"})
}

// canary is content that no other file has, so that it has chunks, and blocks
// on the disk, of its own.
func canary() []byte {
	b := make([]byte, canarySize)
	r := rand.NewChaCha8([32]byte([]byte("zos example shop: the canary ...")))
	for i := range b {
		b[i] = byte(r.Uint64())
	}
	return b
}
