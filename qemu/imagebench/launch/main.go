// SPDX-License-Identifier: Apache-2.0

// Command launch starts what imagebench measures and tells what it took. It is a
// program of its own because it has to be small: a child's peak of memory counts
// what its parent had at the fork, and the start of a large program is time.
//
//	launch run PROGRAM ARGUMENTS…   writes peak KiB and microseconds on a processor to descriptor 3
//	launch tar FROM TO              makes an image of a plain tar, with what zos converts with
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"

	"github.com/zos-node/zos/zimage/erofs"
	"github.com/zos-node/zos/zimage/flat"
)

func main() {
	switch {
	case len(os.Args) > 2 && os.Args[1] == "run":
		os.Exit(run(os.Args[2:]))
	case len(os.Args) == 4 && os.Args[1] == "tar":
		if err := tarToImage(os.Args[2], os.Args[3]); err != nil {
			fmt.Fprintln(os.Stderr, "launch:", err)
			os.Exit(1)
		}
	default:
		fmt.Fprintln(os.Stderr, "launch: run PROGRAM… or tar FROM TO")
		os.Exit(2)
	}
}

// run runs a command and writes to descriptor 3 what it took.
func run(argv []string) int {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		cpu := cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
		fmt.Fprintln(os.NewFile(3, "peak"), usage.Maxrss, cpu.Microseconds())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// tarToImage makes an image of a plain tar, with what zos converts with.
func tarToImage(from, to string) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close() // was only read
	info, err := in.Stat()
	if err != nil {
		return err
	}
	spool, err := os.CreateTemp(filepath.Dir(to), "spool-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, spool.Close(), os.Remove(spool.Name())) }()
	tree := flat.New(spool, flat.DefaultLimits())
	if err := tree.LayerIn(in, info.Size()); err != nil {
		return err
	}
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	_, err = erofs.Write(out, tree.Root())
	return errors.Join(err, out.Close())
}
