// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Program is one of our commands, built for the node or the guest.
type Program struct {
	Package string // import path
	Tags    string // build tags, comma separated; "" for production
	Arch    string // GOARCH
}

// Build compiles it statically and reproducibly. dir lies in our module.
func (p Program) Build(ctx context.Context, dir string) ([]byte, error) {
	tmp, err := os.MkdirTemp("", "zos-program-")
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", p.Package, err)
	}
	out := filepath.Join(tmp, "program")
	b, err := p.build(ctx, dir, out)
	if rm := os.RemoveAll(tmp); err == nil && rm != nil {
		err = fmt.Errorf("build %s: %w", p.Package, rm)
	}
	return b, err
}

func (p Program) build(ctx context.Context, dir, out string) ([]byte, error) {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out}
	if p.Tags != "" {
		args = append(args, "-tags="+p.Tags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.Package)...)
	cmd.Dir = dir
	arch := p.Arch
	if arch == "" {
		arch = "amd64"
	}
	// GOFLAGS of the user must not change what comes out.
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+arch, "GOAMD64=v1", "GOFLAGS=")
	var errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &errs, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("build %s: %w\n%s", p.Package, err, strings.TrimSpace(errs.String()))
	}
	b, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("build %s: %w", p.Package, err)
	}
	return b, nil
}
