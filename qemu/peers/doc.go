// SPDX-License-Identifier: Apache-2.0

// Package peers makes the systems that a node's boot is measured against
// (make bench BENCH=boot): roots of Debian with systemd, put together from
// Debian's packages as its cloud images are, and u-root's default initramfs.
// What is made is kept in a folder and made again only when its recipe changes.
package peers

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// System is one that boots under QEMU.
type System struct {
	Name    string
	About   string // what it is, and what it is not
	Kernel  string // "" is the node's own
	Initrd  string
	Cmdline string
	Args    []string // of QEMU: its disk
	Prompt  string   // pattern of the prompt that ends the boot
	Login   string   // what to type there to get to a shell, "" where it is one
	Shell   string   // pattern of the shell's prompt
}

// key names a recipe.
func key(recipe ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(recipe, "\n")))
	return hex.EncodeToString(sum[:6])
}

// run runs a program; its error has the end of what it said.
func run(ctx context.Context, dir string, env []string, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	var out, said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Run(); err != nil {
		text := said.String()
		return nil, fmt.Errorf("%s %s: %w\n%s", filepath.Base(name), strings.Join(args[:min(2, len(args))], " "), err, text[max(0, len(text)-2000):])
	}
	return out.Bytes(), nil
}

// made says whether all the files of a system are there.
func made(names ...string) bool {
	for _, n := range names {
		if _, err := os.Stat(n); err != nil {
			return false
		}
	}
	return true
}

// scratch runs f with a folder that is gone afterwards, and sees to it that the
// one for what is made is there. It stands apart from it: half a root file
// system is nothing that others should come across.
func scratch(in string, f func(dir string) error) error {
	if err := os.MkdirAll(in, 0o755); err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	dir, err := os.MkdirTemp("", "zos-peers-")
	if err != nil {
		return fmt.Errorf("peers: %w", err)
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}
