// SPDX-License-Identifier: Apache-2.0

// Command demo does the main job of zos once, with the real programs: it
// starts a ledger and a mirror on loopback, makes two images, signs a
// deployment with three keys, boots a node in QEMU, and checks what the node
// did, from outside. It calls the zos command as an operator would; what it
// prints can be typed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/term"

	"github.com/zos-node/zos/qemu"
)

func main() {
	endings := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) { // nohup
		endings = append(endings, syscall.SIGHUP)
	}
	ctx, stop := signal.NotifyContext(context.Background(), endings...)
	code := run(ctx)
	stop()
	os.Exit(code)
}

func run(ctx context.Context) int {
	var c chain
	flag.StringVar(&c.board, "board", "qemu-x86_64", "kind of machine to build the image for: a name, or a file that ends in .yaml")
	flag.BoolVar(&c.imageOnly, "image-only", false, "build the node image into build/images and stop")
	flag.StringVar(&c.signKeys, "keys", "", "with -image-only: folder of Secure Boot keys that the image is signed with")
	flag.StringVar(&c.version, "version", "", "with -image-only: version of the image; zos's own when empty")
	flag.BoolVar(&c.stay, "stay", term.IsTerminal(int(os.Stdout.Fd())) && term.IsTerminal(int(os.Stdin.Fd())), "leave everything running until Ctrl-C")
	flag.StringVar(&c.benchFile, "bench", "", "measure instead, and write the results to this file")
	flag.BoolVar(&c.benchBoot, "bench-boot", false, "with -bench: measure boots, sizes and memory, against other systems")
	flag.StringVar(&c.rows, "rows", bootRows, "with -bench-boot: what is measured")
	flag.IntVar(&c.rounds, "rounds", rounds, "with -bench-boot: how often each boot is measured")
	flag.StringVar(&c.dir, "dir", "build", "where to write")
	flag.Parse()

	self, err := os.Executable()
	if err != nil {
		fmt.Fprintf(os.Stderr, "demo: find myself: %v\n", err)
		return 1
	}
	c.zos = filepath.Join(filepath.Dir(self), "zos")
	c.steps = steps{out: os.Stdout}
	first := c
	err = c.run(ctx)
	if err != nil && ctx.Err() == nil && c.emulatorBroke() {
		c.close()
		// Told apart from a failure of ours, tried once more, and said.
		fmt.Fprintf(os.Stdout, "\nThe emulator broke the node's kernel (a known race of QEMU without KVM, not of zos). Once more, from the start.\n\n")
		first.locked = c.locked
		c = first
		err = c.run(ctx)
	}
	// The reason comes first: to end a node in order takes its time.
	interrupted := errors.Is(err, context.Canceled)
	if err != nil && !interrupted {
		explain(os.Stderr, err)
	}
	if err != nil || c.stay {
		fmt.Fprintln(os.Stdout, "\nstopping what was started")
	}
	c.close()
	if err != nil || c.stay {
		fmt.Fprintln(os.Stdout, "everything that was started has been stopped")
	}
	switch {
	case interrupted:
		fmt.Fprintln(os.Stdout, "interrupted")
		return 130
	case err != nil:
		return 1
	}
	return 0
}

// emulatorBroke looks at what the node said last, and at what it ran on.
func (c *chain) emulatorBroke() bool {
	name, _, _ := strings.Cut(firstMatch(c.consolePath, acceleratorSaid), " ")
	return c.consolePath != "" && qemu.IsEmulatorFault(name, tailFile(c.consolePath, 200))
}
