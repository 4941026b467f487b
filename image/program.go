// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
)

// Programs are commands of ours, built for the node or the guest.
type Programs struct {
	Packages []string // import paths
	Tags     string   // build tags, comma separated; "" for production
	Arch     string   // GOARCH
}

// Build compiles them statically and reproducibly, in one run of go. dir lies
// in our module. The result is by import path.
func (p Programs) Build(ctx context.Context, dir string) (map[string][]byte, error) {
	tmp, err := os.MkdirTemp("", "zos-programs-")
	if err != nil {
		return nil, fmt.Errorf("build programs: %w", err)
	}
	all, err := p.build(ctx, dir, tmp)
	if rm := os.RemoveAll(tmp); err == nil && rm != nil {
		err = fmt.Errorf("build programs: %w", rm)
	}
	return all, err
}

func (p Programs) build(ctx context.Context, dir, out string) (map[string][]byte, error) {
	args := []string{"build", "-trimpath", "-buildvcs=false", "-ldflags=-s -w -buildid=", "-o", out + "/"}
	if p.Tags != "" {
		args = append(args, "-tags="+p.Tags)
	}
	cmd := exec.CommandContext(ctx, "go", append(args, p.Packages...)...)
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
		return nil, fmt.Errorf("build %s: %w\n%s", strings.Join(p.Packages, " "), err, strings.TrimSpace(errs.String()))
	}
	all := map[string][]byte{}
	for _, pkg := range p.Packages {
		b, err := os.ReadFile(filepath.Join(out, path.Base(pkg)))
		if err != nil {
			return nil, fmt.Errorf("build %s: %w", pkg, err)
		}
		all[pkg] = b
	}
	return all, nil
}

// Program is one command.
type Program struct {
	Package, Tags, Arch string // see Programs
}

// Build compiles it.
func (p Program) Build(ctx context.Context, dir string) ([]byte, error) {
	all, err := Programs{[]string{p.Package}, p.Tags, p.Arch}.Build(ctx, dir)
	return all[p.Package], err
}
