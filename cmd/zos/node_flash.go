// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/flash"
)

func (a *app) nodeFlash() *cobra.Command {
	var serial, seedFile string
	var write bool
	cmd := &cobra.Command{
		Use:   "flash IMAGE DEVICE",
		Short: "write a node image onto a disk, and read it back",
		Long: "Show what would be written where; with --write, write it and read it back.\n\n" +
			"DEVICE is a whole disk such as /dev/sdb (node.img; node-4k.img for disks with sectors of\n" +
			"4096 bytes), or a file of a virtual disk's size. A disk that is in use is never written. One\n" +
			"that is not empty is only written when --serial names its exact serial number, which the\n" +
			"plan shows; everything on it is lost then. Looked at are all of the disk that the image would\n" +
			"cover, its end, and samples of the rest.\n\n" +
			"Exit codes: 0 done or planned, 1 writing or reading back failed, 2 wrong arguments,\n" +
			"3 refused, and why, 4 no such image, disk or seed.",
		Example: "  zos node flash build/images/pc-x86_64/node.img /dev/sdb\n" +
			"  zos node flash build/images/pc-x86_64/node.img /dev/sdb --seed n1.json --serial S3Z8NB0K --write",
		Args: exactly(2, "the image and the disk"),
		RunE: func(cmd *cobra.Command, args []string) error {
			img := args[0]
			if seedFile != "" {
				seeded, done, err := seededCopy(img, seedFile)
				if err != nil {
					return err
				}
				defer done()
				img = seeded
			}
			progress := func(step string, done, total int64) { a.progress(step, int(done>>20), max(1, int(total>>20))) }
			p, err := flash.Look(cmd.Context(), img, args[1], serial, progress)
			switch {
			case errors.Is(err, os.ErrNotExist):
				return coded(exitNotFound, err)
			case errors.Is(err, image.ErrMedium), errors.Is(err, flash.ErrRefused):
				return coded(exitRefused, err)
			case err != nil:
				return err
			}
			p.Image = args[0]
			if !a.json {
				printPlan(a.out, p, seedFile)
			}
			if p.Refused != "" {
				return coded(exitRefused, fmt.Errorf("%w: %s", flash.ErrRefused, p.Refused))
			}
			p.Image = img
			if write {
				if err := p.Write(cmd.Context(), progress); err != nil {
					return err
				}
				a.progress("", 1, 1)
			}
			p.Image = args[0]
			return a.print(map[string]any{"plan": p, "written": write}, func(w io.Writer) {
				if write {
					fmt.Fprintln(w, "written, and read back the same")
				} else {
					fmt.Fprintln(w, "nothing was written; the same command with --write does it")
				}
			})
		},
	}
	cmd.Flags().StringVar(&serial, "serial", "", "serial number of the disk: needed when it is not empty")
	cmd.Flags().StringVar(&seedFile, "seed", "", "seed that goes onto the boot partition, in place of the image's")
	cmd.Flags().BoolVar(&write, "write", false, "write, instead of only showing the plan")
	return cmd
}

func printPlan(w io.Writer, p flash.Plan, seedFile string) {
	d := p.Device
	what := "zos " + p.Version
	if p.Kind != image.KindDisk {
		what = "of kind " + p.Kind
	}
	fmt.Fprintf(w, "image   %s: %s, %d bytes\n", p.Image, what, p.Size)
	fmt.Fprintf(w, "disk    %s: %d bytes in sectors of %d, model %q, serial %q\n", d.Path, d.Size, d.Sector, harmless(d.Model), harmless(d.Serial))
	fmt.Fprintf(w, "holds   %s\n", cmp.Or(d.Holds, fmt.Sprintf("nothing in the %d bytes that were looked at", d.Looked)))
	fmt.Fprintf(w, "seed    %s\n", whose(p.Seed, seedFile))
}

// whose says which node the seed is for that goes onto a disk.
func whose(text []byte, seedFile string) string {
	from := cmp.Or(seedFile, "the image's own")
	if len(text) == 0 {
		return "none: the node asks SMBIOS and other media for one"
	}
	s, err := seed.Decode(text)
	if err != nil {
		return from + ", which no node takes: " + err.Error()
	}
	return fmt.Sprintf("%s: node %s, ledger %s", from, s.Name, strings.Join(s.Ledger, " "))
}

// readSeed refuses what the node would refuse.
func readSeed(file string) ([]byte, *seed.Seed, error) {
	b, err := readFile(file, "a seed", seed.MaxBytes)
	if err != nil {
		return nil, nil, fileError(fmt.Errorf("seed: %w", err))
	}
	s, err := seed.Decode(b)
	if err != nil {
		return nil, nil, coded(exitRefused, fmt.Errorf("%s: %w", file, err))
	}
	return b, s, nil
}

// seededCopy is a temporary image with another seed; done removes it.
func seededCopy(img, seedFile string) (name string, done func(), err error) {
	b, _, err := readSeed(seedFile)
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "zos-flash-")
	if err != nil {
		return "", nil, err
	}
	done = func() { _ = os.RemoveAll(dir) } // a seed holds a secret; the system cleans up what is left
	name = filepath.Join(dir, filepath.Base(img))
	if err := image.Rewrite(img, name, func(boot *image.Boot) { boot.Seed = b }); err != nil {
		done()
		if errors.Is(err, os.ErrNotExist) {
			return "", nil, coded(exitNotFound, err)
		}
		return "", nil, coded(exitRefused, err)
	}
	return name, done, nil
}
