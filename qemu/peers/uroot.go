// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// u-root as it is measured: its newest release, by the hash that go.sum would
// have.
const (
	uroot        = "github.com/u-root/u-root"
	urootVersion = "v0.16.0"
	urootSum     = "h1:wY40O83MBVks97+Is0WlFlOPSwKQMIrWP9R1IsrExg8="
)

// URoot builds u-root's default initramfs (commands "core", shell gosh) with
// its own tool, into dir.
func URoot(ctx context.Context, dir string) (System, error) {
	out := filepath.Join(dir, "u-root-"+urootVersion+".cpio")
	s := System{Name: "u-root", About: "u-root " + urootVersion + ", its default initramfs (core, gosh), not compressed, as its tool writes it", Initrd: out,
		Cmdline: "console=tty0 console=ttyS0,115200n8 quiet loglevel=4", Prompt: urootPrompt, Shell: urootPrompt}
	if made(out) {
		return s, nil
	}
	return s, scratch(dir, func(tmp string) error {
		text, err := run(ctx, tmp, nil, "go", "mod", "download", "-json", uroot+"@"+urootVersion)
		if err != nil {
			return err
		}
		var m struct{ Dir, Sum string }
		if err := json.Unmarshal(text, &m); err != nil {
			return fmt.Errorf("u-root: %w", err)
		}
		if m.Sum != urootSum {
			return fmt.Errorf("u-root %s has hash %s, want %s", urootVersion, m.Sum, urootSum)
		}
		// Its tool builds what stands in a module that can be written to.
		src := filepath.Join(tmp, "src")
		if err := os.CopyFS(src, os.DirFS(m.Dir)); err != nil {
			return fmt.Errorf("u-root: %w", err)
		}
		env := []string{"GOFLAGS=", "CGO_ENABLED=0"}
		if _, err := run(ctx, src, env, "go", "build", "-o", filepath.Join(tmp, "u-root"), "."); err != nil {
			return err
		}
		part := out + ".part"
		if _, err := run(ctx, src, env, filepath.Join(tmp, "u-root"), "-o", part); err != nil {
			return err
		}
		return os.Rename(part, out)
	})
}

// urootPrompt ends what u-root's shell asks with.
const urootPrompt = `^> ?`
