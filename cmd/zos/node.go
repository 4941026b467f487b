// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/recovery"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/boards"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// nodeCommands build and boot nodes.
func nodeCommands(a *app) []*cobra.Command {
	node := &cobra.Command{Use: "node", Short: "build and boot node images, and see what nodes offer"}
	node.AddCommand(a.nodeBuild(), a.nodeKeys(), a.nodeGuest(), a.nodeLock(), a.nodeSeed(), a.nodeSeeds(), a.nodeFlash(), a.nodeInspect(), a.nodeRun(), a.nodeCapacity(), a.nodeIncidents())
	return []*cobra.Command{node}
}

// nodeLog is for what a person has to hear while a long command works.
func (a *app) nodeLog() *slog.Logger { return slog.New(slog.NewTextHandler(lines{a}, nil)) }

// partsFlags are where a build finds and keeps things.
type partsFlags struct{ source, cache, guest string }

func (p *partsFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVar(&p.source, "source", ".", "folder of zos's own source")
	cmd.Flags().StringVar(&p.cache, "cache", "build/cache", "folder for downloads")
	cmd.Flags().StringVar(&p.guest, "guest", "build/guest", "folder for the guests' kernel and initramfs")
}

// look refuses a folder that is not zos's own source.
func (p *partsFlags) look() error {
	for _, name := range []string{"go.mod", lockPath} {
		if _, err := os.Stat(filepath.Join(p.source, name)); err != nil {
			return fileError(fmt.Errorf("--source %s is not the folder of zos's own source: %w; run this in the repository, or name it", p.source, err))
		}
	}
	return nil
}

// lockPath is the lock of what builds download, in zos's own source.
const lockPath = "kernel/debian.lock"

// open prepares the source of foreign parts.
func (p *partsFlags) open(log *slog.Logger, arch string) (*kernel.Source, error) {
	if err := p.look(); err != nil {
		return nil, err
	}
	return kernel.Open(kernel.Options{
		Cache: filepath.Join(p.cache, "debian"), Lock: filepath.Join(p.source, lockPath),
		WorkLock: filepath.Join(filepath.Dir(p.cache), "debian.lock"), Arch: arch, Log: log,
	})
}

func (a *app) nodeBuild() *cobra.Command {
	var parts partsFlags
	var board, root, seedFile, keyDir, version, out string
	var faults bool
	cmd := &cobra.Command{
		Use:   "build",
		Short: "build a node image: UKI, disk image, and the guests' kernel",
		Long: "Build a node image for a kind of machine.\n\nA machine that none of the boards fits gets a board of its own: copy one of boards/*.yaml, change\nits name and what is different, and give the file as --board.\n\nCloud Hypervisor is taken from CLOUD_HYPERVISOR=/path, the user's cache, or its\n" +
			"project's release by digest; where none can be had, or with CLOUD_HYPERVISOR=none,\nthe image carries Debian's QEMU. For arm64 the variable is CLOUD_HYPERVISOR_ARM64,\nand there is no second one.",
		Example: "  zos node build --board qemu-x86_64 --root ledger/root.json --seed seed.json -o build/images/qemu-x86_64\n" +
			"  zos node build --board my-server.yaml --root ledger/root.json -o build/images/my-server",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !ledger.ValidVersion(version) {
				return coded(exitUsage, fmt.Errorf("--version %q: want two to four numbers such as 1.4.0", version))
			}
			b, err := openBoard(board)
			if err != nil {
				return err
			}
			envelope, err := readRoot(root)
			if err != nil {
				return err
			}
			var s []byte
			if seedFile != "" {
				if s, _, err = readSeed(seedFile); err != nil {
					return err
				}
			}
			var keys *secureboot.Signer
			if keyDir != "" {
				if keys, err = secureboot.Open(keyDir); err != nil {
					return coded(exitNotFound, fmt.Errorf("--keys: %w; zos node keys makes a folder", err))
				}
			}
			source, err := parts.open(a.nodeLog(), b.Arch)
			if err != nil {
				return err
			}
			res, err := image.Build(cmd.Context(), image.Request{
				Board: b, Source: parts.source, Parts: source, Root: envelope, Seed: s, Keys: keys, Version: version, Faults: faults, Out: out, Guest: parts.guest,
				Log: a.nodeLog(), Progress: a.progress,
			})
			if err != nil {
				return err
			}
			return a.print(res, func(w io.Writer) { printBuild(w, out, res) })
		},
	}
	parts.add(cmd)
	cmd.Flags().StringVar(&board, "board", "qemu-x86_64", boardUsage)
	cmd.Flags().StringVar(&root, "root", os.Getenv("ZOS_ROOT"), "trust root that goes into the image (env ZOS_ROOT)")
	cmd.Flags().StringVar(&seedFile, "seed", "", "seed that goes onto the boot partition")
	cmd.Flags().StringVar(&keyDir, "keys", os.Getenv("ZOS_KEYS"), "folder of Secure Boot keys: the image is signed, and enrols them in setup mode (env ZOS_KEYS)")
	cmd.Flags().StringVar(&version, "version", image.Version, "version of the image: an update goes to a higher one")
	cmd.Flags().StringVarP(&out, "output", "o", "", "folder for the result")
	cmd.Flags().BoolVar(&faults, "faults", false, "a TEST image that obeys the rig's fault channel")
	must(cmd.MarkFlagRequired("output"))
	return cmd
}

const boardUsage = "kind of machine: one of zos's boards by name, or a file of your own that ends in .yaml"

// openBoard reads a board by its name, or from a file.
func openBoard(word string) (boards.Board, error) {
	b, err := boards.Open(word)
	switch {
	case errors.Is(err, boards.ErrUnknown), errors.Is(err, fs.ErrNotExist):
		return b, coded(exitNotFound, fmt.Errorf("--board: %w", err))
	case err != nil:
		return b, coded(exitRefused, fmt.Errorf("--board: %w", err))
	}
	return b, nil
}

// must is for mistakes of a programmer that the first start shows.
func must(err error) {
	if err != nil {
		panic(err)
	}
}

// readRoot reads a trust root and refuses what is no envelope.
func readRoot(name string) ([]byte, error) {
	if name == "" {
		return nil, coded(exitUsage, fmt.Errorf("--root: name the trust root that goes into the image, such as root.json in the folder that zos ledger init made"))
	}
	const want = "want the envelope of a ledger's root, such as root.json in the folder that zos ledger init made"
	b, err := readFile(name, "a trust root", ledger.MaxEntry+1)
	if err != nil {
		return nil, fileError(fmt.Errorf("--root: %w; %s", err, want))
	}
	if _, err := sign.DecodeEnvelope(b); err != nil {
		return nil, coded(exitRefused, fmt.Errorf("--root: %s: %w; %s", name, err, want))
	}
	return b, nil
}

func printBuild(w io.Writer, out string, r image.Result) {
	fmt.Fprintf(w, "board       %s\nkernel      %s (%s)\nhypervisor  %s %s, %s, %s\n", r.Board, r.Kernel, r.KernelSource, r.Hypervisor.Name, r.Hypervisor.Version, r.Hypervisor.Source, r.Hypervisor.Digest)
	for _, group := range []map[string]image.Item{r.Programs, r.Files} {
		names := make([]string, 0, len(group))
		for n := range group {
			names = append(names, n)
		}
		slices.Sort(names)
		for _, n := range names {
			fmt.Fprintf(w, "%-22s %7.1f MB  %s\n", n, float64(group[n].Size)/1e6, group[n].Digest)
		}
	}
	fmt.Fprintf(w, "all of it stands in %s\n", filepath.Join(out, "build.json"))
	if r.SignedBy == "" {
		fmt.Fprintln(w, "not signed for Secure Boot; --keys signs")
	} else {
		fmt.Fprintf(w, "signed for Secure Boot by certificate %s\n", r.SignedBy)
	}
	if r.Faults {
		fmt.Fprintln(w, "THIS IS A TEST IMAGE: it obeys the rig's fault channel")
	}
}

func (a *app) nodeGuest() *cobra.Command {
	var parts partsFlags
	var board string
	cmd := &cobra.Command{
		Use:     "guest",
		Short:   "build only the guests' kernel and initramfs",
		Example: "  zos node guest --guest build/guest",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b, err := openBoard(board)
			if err != nil {
				return err
			}
			source, err := parts.open(a.nodeLog(), b.Arch)
			if err != nil {
				return err
			}
			a.progress("guests' kernel and initramfs", 0, 1)
			files, err := image.BuildGuest(cmd.Context(), b, source, parts.source, parts.guest)
			if err != nil {
				return err
			}
			return a.print(map[string]any{"files": files}, func(w io.Writer) {
				for n, f := range files {
					fmt.Fprintf(w, "%s/%s  %d bytes  %s\n", parts.guest, n, f.Size, f.Digest)
				}
			})
		},
	}
	parts.add(cmd)
	cmd.Flags().StringVar(&board, "board", "qemu-x86_64", boardUsage)
	return cmd
}

func (a *app) nodeSeed() *cobra.Command {
	var s seed.Seed
	var network networkFlags
	var voucher, voucherKey, out string
	var operators []string
	var replace bool
	cmd := &cobra.Command{
		Use:   "seed",
		Short: "compose what a node is told before it can reach the ledger",
		Long: "Compose a seed: what a node has to know before it can reach the ledger. It holds the\n" +
			"voucher's private key. One that is there already is not overwritten without --replace.\n\n" +
			"Exit codes: 0 made, 2 wrong arguments, 3 refused: a file is not what it has to be, the ledger\n" +
			"can never be reached like that, or there is a seed already, 4 no such file.",
		Example: "  zos node seed --name n1 --ledger http://10.0.2.2:8470 --mirror http://10.0.2.2:8480 --voucher voucher.json -o seed.json\n" +
			"  zos node seed --name n2 --ledger http://192.0.2.1:8470 --voucher voucher.json --address 192.0.2.20/24 --gateway 192.0.2.1 --recovery operator.pub -o seed.json\n" +
			"  zos node seed --name n3 --ledger http://192.0.2.1:8470 --voucher voucher.json --link 52:54:00:12:34:56 --link 52:54:00:12:34:57 --bond lacp --vlan 7 -o seed.json",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := free(out, replace); err != nil {
				return err
			}
			b, err := readFile(voucher, "a voucher", sign.MaxEnvelope+1)
			if err != nil {
				return fileError(fmt.Errorf("--voucher: %w", err))
			}
			env, err := sign.DecodeEnvelope(b)
			if err != nil {
				return coded(exitRefused, fmt.Errorf("%s: %w", voucher, err))
			}
			v, err := ledger.OpenVoucher(env)
			if err != nil {
				return coded(exitRefused, fmt.Errorf("%s: %w", voucher, err))
			}
			a.noteExpired(v, time.Now())
			if voucherKey == "" {
				voucherKey = voucher + voucherKeyExt
			}
			secret, err := readFile(voucherKey, "the voucher's key", maxKeyFile)
			if err != nil {
				return fileError(fmt.Errorf("--voucher-key: %w", err))
			}
			if _, err := sign.ParseSigner(secret); err != nil {
				return coded(exitRefused, fmt.Errorf("--voucher-key: %s: %w", voucherKey, err))
			}
			s.VoucherKey = string(secret)
			s.APIVersion, s.Kind, s.Voucher = seed.Version, "Seed", *env
			if s.Networks, err = network.networks(cmd); err != nil {
				return err
			}
			if err := onLink(s.Networks, s.Ledger); err != nil {
				return coded(exitRefused, err)
			}
			if s.Recovery, err = operatorKeys(operators); err != nil {
				return err
			}
			// What came from files was looked at; the rest are flags.
			text, err := s.Encode()
			if err != nil {
				return coded(exitUsage, fmt.Errorf("%w; see %s --help", err, cmd.CommandPath()))
			}
			if _, err := seed.Decode(text); err != nil {
				return coded(exitRefused, err)
			}
			if out == "" || out == "-" {
				_, err := a.out.Write(text)
				return err
			}
			if err := writeSecret(out, text); err != nil {
				return fmt.Errorf("write the seed: %w", err)
			}
			return a.print(map[string]any{"seed": out, "bytes": len(text)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: node %s, %d ledger and %d mirror addresses, network %s\n", out, s.Name, len(s.Ledger), len(s.Mirrors), describe(s.Networks))
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&s.Name, "name", "", "name of the node, a DNS label")
	f.StringArrayVar(&s.Ledger, "ledger", []string{}, "base URL of a ledger mirror, as the node sees it (repeat)")
	f.StringArrayVar(&s.Mirrors, "mirror", []string{}, "base URL of a chunk mirror (repeat)")
	f.StringVar(&voucher, "voucher", "", "voucher that an operator signed")
	f.StringVar(&voucherKey, "voucher-key", "", "private key of the voucher; its file with .key when empty")
	f.StringArrayVar(&operators, "recovery", nil, "file with a public key of age, or an SSH key of type ed25519 or rsa: whoever has its other half can open the node's state without its TPM (repeat)")
	network.add(f)
	f.StringVarP(&out, "output", "o", "", "file; standard output when empty")
	f.BoolVar(&replace, "replace", false, replaceUsage)
	for _, n := range []string{"name", "ledger", "voucher"} {
		must(cmd.MarkFlagRequired(n))
	}
	return cmd
}

const replaceUsage = "take the place of what is there already"

// free refuses a place where something stands: a node may still need it.
func free(name string, replace bool) error {
	if name == "" || name == "-" || replace {
		return nil
	}
	if err := regularOrAbsent(name, "what was written before, or nothing"); err != nil {
		return err
	}
	switch _, err := os.Lstat(name); {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fileError(err)
	}
	return coded(exitRefused, fmt.Errorf("%s is there already; name another, or --replace it", name))
}

// operatorKeys reads files of one public key each.
func operatorKeys(files []string) ([]string, error) {
	keys := make([]string, 0, len(files))
	for _, name := range files {
		b, err := readFile(name, "a public key", maxKeyFile)
		if err != nil {
			return nil, fileError(fmt.Errorf("--recovery: %w", err))
		}
		k := strings.TrimSpace(string(b))
		if n := strings.Count(k, "\n") + 1; n > 1 {
			return nil, coded(exitRefused, fmt.Errorf("--recovery %s: has %d lines, want the one line of a public key: age1… (age-keygen), or ssh-ed25519 or ssh-rsa (ssh-keygen); a certificate for Secure Boot is none", name, n))
		}
		if _, err := recovery.Recipients([]string{k}); err != nil {
			return nil, coded(exitRefused, fmt.Errorf("--recovery %s: %w", name, err))
		}
		keys = append(keys, k)
	}
	return keys, nil
}
