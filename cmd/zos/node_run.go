// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/qemu"
)

// goodbye is how long a node gets to end its guests after Ctrl-C.
const goodbye = 60 * time.Second

// pressEvery is between two presses of its power button meanwhile.
const pressEvery = 3 * time.Second

func (a *app) nodeRun() *cobra.Command {
	var forward []string
	var memory, cpus int
	var seedFile, log string
	cmd := &cobra.Command{
		Use:   "run IMG",
		Short: "boot a node image in QEMU, with its console on this terminal",
		Long: "Boot a node image in QEMU. The image itself is not changed.\n\nInside, 10.0.2.2 is this machine's loopback. Ctrl-C presses the power button; a second\n" +
			"Ctrl-C, or a minute, ends the machine. An image for arm64 runs in Debian's qemu-system-arm.\n\n" +
			"Exit codes: 0 the machine was turned off, 1 it failed, 2 wrong arguments, 3 no node image, or a seed\n" +
			"that no node takes, 4 no such file, 130 Ctrl-C.",
		Example: "  zos node run build/images/qemu-x86_64/node.img --forward 8080:80 --memory 2048",
		Args:    exactly(1, "the node image to boot"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if info, err := os.Stat(args[0]); err != nil {
				return fileError(fmt.Errorf("node image: %w; zos node build makes one", err))
			} else if !info.Mode().IsRegular() {
				return coded(exitUsage, fmt.Errorf("%s is no file; want the node.img that zos node build wrote", args[0]))
			}
			if memory < 64 || cpus < 0 {
				return coded(exitUsage, fmt.Errorf("--memory %d --cpus %d: want 64 MiB or more, and 0 processors or more", memory, cpus))
			}
			ports, err := parseForward(forward)
			if err != nil {
				return coded(exitUsage, err)
			}
			var oem []string
			if seedFile != "" {
				b, _, err := readSeed(seedFile)
				if err != nil {
					return err
				}
				oem = []string{seed.SMBIOSPrefix + base64.StdEncoding.EncodeToString(b)}
			}
			arch, err := bootable(args[0])
			if err != nil {
				return err
			}
			o := machineFor(cmd.Context(), arch, args[0])
			o.MemoryMiB, o.CPUs, o.Forward, o.Log, o.Console, o.SMBIOS = memory, cpus, ports, log, a.err, oem
			if !a.json {
				o.Console = a.out
			}
			fmt.Fprintf(a.err, "accelerator: %s (%s)\n", o.Accel.Name, o.Accel.Why)
			return a.runMachine(cmd.Context(), o)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&forward, "forward", nil, "HOSTPORT:PORT, from this machine's loopback to the node (repeat)")
	f.IntVar(&memory, "memory", 2048, "MiB")
	f.IntVar(&cpus, "cpus", 0, "processors; when 0: 2 with KVM, 1 without")
	f.StringVar(&seedFile, "seed", "", "seed to hand over by SMBIOS")
	f.StringVar(&log, "log", "", "file for a copy of the console")
	return cmd
}

// bootable is the architecture of an image's loader. What no firmware would boot
// from the machine's disk is refused: it would stand in its shell without a word.
func bootable(file string) (arch string, err error) {
	all, err := image.OpenAll(file)
	switch {
	case errors.Is(err, image.ErrMedium):
		return "", coded(exitRefused, fmt.Errorf("%w; want the node.img that zos node build wrote", err))
	case err != nil:
		return "", fileError(fmt.Errorf("node image: %w", err))
	case all[0].Kind == image.KindUKI:
		return "", coded(exitRefused, fmt.Errorf("%s is a UKI alone, without a disk around it; want the node.img that zos node build wrote beside it", file))
	case all[0].Sector != diskSector:
		return "", coded(exitRefused, fmt.Errorf("%s is for disks with sectors of %d bytes, the machine's has %d; want the node.img beside it", file, all[0].Sector, diskSector))
	}
	return all[0].Arch, nil
}

// diskSector is what the disk of a machine has, in bytes.
const diskSector = 512

// machineFor is the machine that an image of an architecture is for.
func machineFor(ctx context.Context, arch, file string) qemu.Options {
	if arch == "arm64" {
		return qemu.Options{Disk: file, Arch: "arm64", Accel: qemu.ArmTCG, UEFI: &qemu.UEFI{Bus: "virtio"}}
	}
	return qemu.Options{Disk: file, Accel: qemu.Probe(ctx, qemu.Binary)}
}

// runMachine boots and stays until the machine is off or Ctrl-C.
func (a *app) runMachine(ctx context.Context, o qemu.Options) (err error) {
	m, err := qemu.Boot(ctx, o, qemu.Up)
	if errors.Is(err, qemu.ErrPortTaken) {
		return fmt.Errorf("%w\nend what has the port (ss -ltnp shows it), or name another: --forward HOSTPORT:PORT", err)
	}
	if err != nil {
		return err
	}
	if m.Retries > 0 {
		fmt.Fprintln(a.err, "an earlier boot died of a fault of the emulator, not of zos; this is the second one")
	}
	defer func() {
		if cerr := m.Close(); err == nil {
			err = cerr
		}
	}()
	select {
	case <-m.Done():
		return m.Wait(context.Background())
	case <-ctx.Done():
	}
	fmt.Fprintf(a.err, "\npressing the power button; waiting up to %s for the node to end its guests\n", goodbye)
	bye, stop := context.WithTimeout(context.WithoutCancel(ctx), goodbye)
	defer stop()
	// The second signal ends the waiting, and with it the machine.
	bye, again := signal.NotifyContext(bye, endings()...)
	defer again()
	press := time.NewTicker(pressEvery)
	defer press.Stop()
	return pressUntilOff(bye, m, press.C)
}

// button is what ending a machine in order needs of it.
type button interface {
	PowerButton(context.Context) error
	Done() <-chan struct{}
	Wait(context.Context) error
}

// pressUntilOff presses a machine's power button again and again: a node that
// starts hears it only when the driver of it is loaded.
func pressUntilOff(ctx context.Context, m button, again <-chan time.Time) error {
	for {
		err := m.PowerButton(ctx) // fails, too, while the machine ends
		select {
		case <-m.Done():
			return m.Wait(context.WithoutCancel(ctx))
		case <-ctx.Done():
			return errors.Join(m.Wait(ctx), err)
		case <-again:
		}
	}
}

// parseForward reads HOSTPORT:PORT words.
func parseForward(words []string) (map[int]int, error) {
	ports := map[int]int{}
	for _, w := range words {
		host, inside, _ := strings.Cut(w, ":")
		h, err1 := strconv.ParseUint(host, 10, 16)
		i, err2 := strconv.ParseUint(inside, 10, 16)
		if err1 != nil || err2 != nil || h == 0 || i == 0 {
			return nil, fmt.Errorf("--forward: %q, want HOSTPORT:PORT", w)
		}
		ports[int(h)] = int(i)
	}
	return ports, nil
}

func (a *app) nodeCapacity() *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "capacity [NODE]",
		Short: "what nodes offer, as they said on the ledger",
		Long: "Show what nodes have said on the ledger that they offer.\n\n" +
			"A node that the ledger refused is not there: a refusal leaves nothing on a ledger. The node's\n" +
			"console says why, and what to do; the ledger's metrics count refusals.",
		Example: "  zos node capacity --ledger http://127.0.0.1:8470 --root ledger/root.json\n  zos node capacity --ledger build/run/ledger --root build/run/ledger/root.json --json n1",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !cmd.Flags().Changed("ledger") && os.Getenv("ZOS_LEDGER") == "" {
				return coded(exitUsage, fmt.Errorf("--ledger is needed (or ZOS_LEDGER): URL or folder of the ledger that the nodes follow; see %s --help", cmd.CommandPath()))
			}
			c, err := a.sync(cmd.Context(), f)
			if err != nil {
				return err
			}
			nodes := slices.Clone(c.State().Nodes())
			if len(args) == 1 {
				nodes = slices.DeleteFunc(nodes, func(n *ledger.Node) bool { return n.Name != args[0] && n.ID != args[0] })
				if len(nodes) == 0 {
					return coded(exitNotFound, fmt.Errorf("no node %q is enrolled: %s; %s without a name lists all that are", args[0], notEnrolled, cmd.CommandPath()))
				}
			}
			return a.print(nodes, func(w io.Writer) { printCapacity(w, nodes) })
		},
	}
	f.addNeeded(cmd)
	return cmd
}

// notEnrolled is all that a ledger can say of a node that it does not have: what it
// refuses leaves nothing on it.
const notEnrolled = "it has not reached this ledger yet, or was refused; its console says which, and why"

// keyKinds are ledger.BootKeys for people.
var keyKinds = map[string]string{
	"sealed": "sealed to its TPM", "clear": "readable by whoever has its disk", "recovery": "readable with the recovery key", "memory": "in its memory only",
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func printCapacity(w io.Writer, nodes []*ledger.Node) {
	if len(nodes) == 0 {
		fmt.Fprintln(w, "no node has enrolled yet; zos node seed makes what one needs for it. If one was started: "+notEnrolled)
		return
	}
	for _, n := range nodes {
		fmt.Fprintf(w, "%s  %s\n", n.Name, n.ID)
		if n.Capacity == nil {
			fmt.Fprintln(w, "  enrolled, has not said yet what it offers")
			continue
		}
		c := n.Capacity
		fmt.Fprintf(w, "  %s, %d vcpus, %d MiB memory, %d MiB storage, %s %s (%s), addresses %s\n",
			c.Arch, c.VCPUs, c.MemoryMiB, c.StorageMiB, c.Hypervisor.Name, harmless(c.Hypervisor.Version), c.Hypervisor.Source, strings.Join(c.Addresses, " "))
		fmt.Fprintf(w, "  says of its boot: Secure Boot %s, register 11 %s, its key is %s\n", harmless(c.Boot.SecureBoot), orNone(c.Boot.PCR11), keyKinds[c.Boot.Key])
		for _, l := range c.Boot.Lacks {
			fmt.Fprintf(w, "  cannot promise: %s\n", harmless(l))
		}
	}
}
