// SPDX-License-Identifier: Apache-2.0

package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/fat32"
	"github.com/zos-node/zos/ledger"
)

// maxSeeds bounds one command.
const maxSeeds = 10_000

// form is where a seed goes.
type form struct {
	about string
	ext   string
	write func(img, out string, seedText []byte) error
}

// forms are the ways to hand a seed to a node, in the words of --form.
var forms = map[string]form{
	"image": {"a copy of IMAGE with the seed on its boot partition", ".img", func(img, out string, text []byte) error {
		return image.Rewrite(img, out, func(b *image.Boot) { b.Seed = text })
	}},
	"usb": {"a small FAT volume with nothing but the seed, for a stick beside the node's own medium", ".fat", func(_, out string, text []byte) error {
		v := fat32.Volume{Size: fat32.MinSize(512), Sector: 512, Label: "ZOSSEED", ID: 0x7a6f7301, Files: []fat32.File{{Path: "/" + seed.MediumPath, Content: text}}}
		f, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
		if err != nil {
			return err
		}
		return errors.Join(f.Truncate(v.Size), v.Write(f), f.Close())
	}},
	"smbios": {"the SMBIOS OEM string (type 11) for a virtual machine's or a board's firmware", ".smbios", func(_, out string, text []byte) error {
		return os.WriteFile(out, []byte(seed.SMBIOSPrefix+base64.StdEncoding.EncodeToString(text)), 0o600)
	}},
}

func (a *app) nodeSeeds() *cobra.Command {
	var names, out, how string
	var replace bool
	cmd := &cobra.Command{
		Use:   "seeds IMAGE SEED…",
		Short: "put seeds onto copies of an image, onto sticks, or into SMBIOS strings",
		Long: "Make one seeded image for each seed: whole fleets in one command.\n\n" +
			"With --names FIRST..LAST there is one SEED, whose name is replaced by each name of the\n" +
			"range (edge-001..edge-100). A voucher that is not good for as many nodes is refused. Each\n" +
			"image is a whole one: a hundred take a hundred times the room of its UKI; what is empty\n" +
			"in them takes none. A copy of an ISO stays one (.iso); its seed is read when it is written\n" +
			"onto a stick, not when it is an optical medium.\n\n" +
			"--form image   " + forms["image"].about + "\n" +
			"--form usb     " + forms["usb"].about + "\n" +
			"--form smbios  " + forms["smbios"].about + "\n\n" +
			"What is made holds the voucher's private key: mode 0600. Nothing that is there already is\n" +
			"overwritten without --replace; it is looked for before anything is made.\n\n" +
			"Exit codes: 0 made, 2 wrong arguments, 3 refused: no image, a seed that no node takes, a voucher for\n" +
			"fewer nodes, or something is there already, 4 no such file.",
		Example: "  zos node seeds build/images/pc-x86_64/node.img seed.json --names edge-001..edge-100 -o build/fleet\n" +
			"  zos node seeds build/images/pc-x86_64/node.img n1.json n2.json -o build/fleet",
		Args: cobra.MinimumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			f, ok := forms[how]
			if !ok {
				return coded(exitUsage, fmt.Errorf("--form: %q, want image, usb or smbios", how))
			}
			if _, err := os.Stat(args[0]); err != nil {
				return coded(exitNotFound, err)
			}
			all, err := seedList(args[1:], names)
			if err != nil {
				return err
			}
			if err := a.vouchersFor(all, time.Now()); err != nil {
				return coded(exitRefused, err)
			}
			if how == "image" {
				m, err := image.Open(args[0])
				switch {
				case errors.Is(err, image.ErrMedium):
					return coded(exitRefused, err)
				case err != nil:
					return err
				case m.Kind == image.KindISO:
					f.ext = ".iso"
					fmt.Fprintf(a.err, "note: %s is an ISO: a node reads the seed on it when it is written onto a stick, not when it is an optical medium; take node.img, or --form usb or smbios beside it\n", args[0])
				}
			}
			for _, s := range all {
				if err := free(filepath.Join(out, s.Name+f.ext), replace); err != nil {
					return err
				}
			}
			if err := os.MkdirAll(out, 0o755); err != nil {
				return err
			}
			made := make([]string, 0, len(all))
			for i, s := range all {
				if err := cmd.Context().Err(); err != nil {
					return err
				}
				text, err := s.Encode()
				if err != nil {
					return coded(exitRefused, err)
				}
				name := filepath.Join(out, s.Name+f.ext)
				if err := f.write(args[0], name, text); err != nil {
					if errors.Is(err, image.ErrMedium) {
						return coded(exitRefused, err)
					}
					return err
				}
				if err := os.Chmod(name, 0o600); err != nil {
					return err
				}
				made = append(made, name)
				a.progress(s.Name, i+1, len(all))
			}
			a.progress("", 1, 1)
			return a.print(map[string]any{"made": made}, func(w io.Writer) { fmt.Fprintf(w, "%d made in %s\n", len(made), out) })
		},
	}
	cmd.Flags().StringVar(&names, "names", "", "FIRST..LAST: names that end in numbers of the same width")
	cmd.Flags().BoolVar(&replace, "replace", false, replaceUsage)
	cmd.Flags().StringVar(&how, "form", "image", "image, usb or smbios")
	cmd.Flags().StringVarP(&out, "output", "o", "", "folder for the result")
	must(cmd.MarkFlagRequired("output"))
	return cmd
}

// vouchersFor refuses seeds of which some could never enrol: the ledger counts
// the uses of each voucher. One that is over is worth a note, since whether it
// is, the ledger's time says.
func (a *app) vouchersFor(all []seed.Seed, now time.Time) error {
	wanted := map[string]int64{}
	for _, s := range all {
		v, err := ledger.OpenVoucher(&s.Voucher)
		if err != nil {
			return fmt.Errorf("voucher in the seed of %s: %w", s.Name, err)
		}
		if wanted[v.ID]++; wanted[v.ID] == 1 {
			a.noteExpired(v, now)
		}
	}
	for _, s := range all {
		if v, err := ledger.OpenVoucher(&s.Voucher); err == nil && wanted[v.ID] > v.Uses {
			return fmt.Errorf("%d seeds have voucher %s, which is good for %d nodes: make one for all (zos ledger voucher --uses %d) and a seed with it (zos node seed)", wanted[v.ID], v.ID, v.Uses, wanted[v.ID])
		}
	}
	return nil
}

// noteExpired says that a voucher is over, by this machine's clock.
func (a *app) noteExpired(v *ledger.ExpiringVoucher, now time.Time) {
	if v.ExpiresMs != 0 && now.UnixMilli() >= v.ExpiresMs {
		fmt.Fprintf(a.err, "note: voucher %s expired at %s: no ledger enrols a node with it any more; make another: zos ledger voucher\n", v.ID, ledger.Moment(v.ExpiresMs))
	}
}

// seedList reads the seeds, or makes one for each name of a range.
func seedList(files []string, names string) ([]seed.Seed, error) {
	var all []seed.Seed
	for _, file := range files {
		_, s, err := readSeed(file)
		if err != nil {
			return nil, err
		}
		all = append(all, *s)
	}
	if names != "" {
		if len(all) != 1 {
			return nil, coded(exitUsage, fmt.Errorf("--names takes one seed, not %d", len(all)))
		}
		for _, n := range all[0].Networks {
			if n.IPv4.Mode == seed.ModeStatic || n.IPv6.Mode == seed.ModeStatic {
				return nil, coded(exitRefused, fmt.Errorf("--names: the seed has a static address, which a hundred nodes cannot share"))
			}
		}
		list, err := nameRange(names)
		if err != nil {
			return nil, coded(exitUsage, err)
		}
		one := all[0]
		all = all[:0]
		for _, n := range list {
			one.Name = n
			all = append(all, one)
		}
	}
	seen := map[string]bool{}
	for _, s := range all {
		if seen[s.Name] {
			return nil, coded(exitRefused, fmt.Errorf("two seeds are called %q", s.Name))
		}
		seen[s.Name] = true
	}
	return all, nil
}

// nameRange spells out edge-001..edge-100.
func nameRange(s string) ([]string, error) {
	bad := fmt.Errorf("--names: %q, want FIRST..LAST such as edge-001..edge-100", s)
	from, to, ok := strings.Cut(s, "..")
	base := strings.TrimRight(from, "0123456789")
	if !ok || base != strings.TrimRight(to, "0123456789") || len(from) != len(to) || len(base) == len(from) {
		return nil, bad
	}
	first, err1 := strconv.Atoi(from[len(base):])
	last, err2 := strconv.Atoi(to[len(base):])
	if err1 != nil || err2 != nil || last < first || last-first >= maxSeeds {
		return nil, bad
	}
	var out []string
	for n := first; n <= last; n++ {
		out = append(out, fmt.Sprintf("%s%0*d", base, len(from)-len(base), n))
	}
	return out, nil
}
