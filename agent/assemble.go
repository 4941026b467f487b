// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/capacity"
	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/content"
	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/follow"
	"github.com/zos-node/zos/agent/hypervisor"
	"github.com/zos-node/zos/agent/imaged"
	"github.com/zos-node/zos/agent/lastwords"
	"github.com/zos-node/zos/agent/record"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/update"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/ch"
	"github.com/zos-node/zos/agent/vm/qemu"
	"github.com/zos-node/zos/agent/volumes"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/zimage"
)

const (
	hypervisorPath    = "/etc/zos/hypervisor.json"
	hypervisorArchive = "/etc/zos/hypervisor.cpio.zst" // what else it has, see kernel.HypervisorArchive
	cgroups           = "/sys/fs/cgroup/zos"
	imagedPath        = "/bin/" + imaged.Name
	// imageDeadline is how long a guest may wait for a part of its disk.
	imageDeadline = 2 * time.Minute
	// hypervisorEvery is how often one that does not start is asked again.
	hypervisorEvery = 30 * time.Second
)

func dialer() func(context.Context, string, string) (net.Conn, error) {
	return (&net.Dialer{Timeout: dialTimeout}).DialContext
}

// assemble makes the parts that need no driver yet, and joins them.
func (n *node) assemble(ctx context.Context, part func(string) *slog.Logger) error {
	signer, err := nodeKey(filepath.Join(n.state.Dir, "node.key"))
	if err != nil {
		return err
	}
	release, err := os.ReadFile(seed.ReleasePath)
	if err != nil {
		return fmt.Errorf("image's own name: %w", err)
	}
	n.about = update.Release(release)
	n.log.Info("node", "name", n.seed.Name, "id", signer.KeyID())
	led, err := follow.NewLedger(clock.System{}, filepath.Join(n.state.Dir, "acted"))
	if err != nil {
		return err
	}
	n.ledger = led
	n.known(who{n.seed.Name, signer.KeyID(), led.Acted})
	root, err := seed.Root(seed.RootPath)
	if err != nil {
		return err
	}
	if err := led.Open(ledger.ClientConfig{Root: root, Ledgers: n.seed.Ledger, StateFile: filepath.Join(n.state.Dir, "checkpoint"), HTTP: n.web}); err != nil {
		return err
	}
	queue, err := record.Open(record.Config{Dir: filepath.Join(n.state.Dir, "records"), Spill: filepath.Join(runDir, "records"), Ledger: led, Signer: signer, Clock: clock.System{}, Log: part("record"),
		Moved: func() { n.progress.Moved("record", recordLimit) }})
	if err != nil {
		return err
	}
	n.reports = &lastwords.Taker{Dir: lastwords.Dir, Log: part("lastwords"), Waiting: queue.Waiting,
		Incident: func(kind, detail string) error { return queue.Incident(-1, kind, "", detail) }}
	n.mirrors = &follow.Mirrors{Log: part("mirror"), Now: time.Now, Incident: func(kind, detail string) error { return queue.Incident(-1, kind, "", detail) }}
	store, err := content.Open(content.Config{Dir: filepath.Join(runDir, "store"), Clock: clock.System{}, Log: part("store"), Space: n.space,
		Fetch: &zimage.Fetcher{Mirrors: n.seed.Mirrors, HTTP: n.web, Log: part("fetch"), Report: n.mirrors.Report},
		Found: func(f content.Finding) error { return n.follower.Wrong(f) }})
	if err != nil {
		return err
	}
	n.world = &deploy.World{Node: signer.KeyID(), Signer: signer, Ledger: led, Records: queue, Content: store, Images: imaged.NewImages(store, part("image")),
		Network: n.manager, Clock: clock.System{}, Log: n.all, RunDir: runDir, Cgroups: cgroups, Resources: capacity.AvailableMiB}
	voucher, err := sign.ParseSigner([]byte(n.seed.VoucherKey))
	if err != nil {
		return fmt.Errorf("key of the voucher: %w", err)
	}
	n.follower = follow.New(ctx, follow.Config{Ledger: led, World: n.world, Name: n.seed.Name, Voucher: n.seed.Voucher, VoucherSigner: voucher, Image: imageName(seed.ReleasePath),
		Barred:   func(s *ledger.State) string { return update.Below(s, n.about.Version) },
		Capacity: n.capacity, LedgerTime: n.ledgerTime, Clock: clock.System{}, Log: part("follow"), Every: follow.SyncEvery,
		Moved: func() { n.progress.Moved("follow", followLimit) }, Known: n.reports.Take})
	go queue.Run(ctx)
	go store.Scrub(ctx)
	return n.updates(signer, led, queue, store, n.mirrors, part("update"))
}

// space is what the division of the node's memory leaves for content: all of
// the storage, less what volumes may grow to.
func (n *node) space(dir string) (content.Space, error) {
	d := n.guests().division
	free, err := d.Free(dir, volumes.Dir(runDir))
	return content.Space{FreeMiB: free, QuotaMiB: d.StorageMiB}, err
}

// guests is what the node knows about running guests, once it can.
type guests struct {
	ready    bool
	division capacity.Division
	hyper    hypervisor.Description
}

func (n *node) guests() guests {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.can
}

// prepare makes the node able to run guests, while the rest catches up with
// the ledger already: packet filter, hypervisor, and what an earlier agent
// left. Nothing is offered or claimed before; a hypervisor that does not start
// keeps it there, where an update still reaches the node.
func (n *node) prepare(ctx context.Context) error {
	if err := n.drivers(ctx); err != nil {
		return err
	}
	if err := n.manager.Base(); err != nil {
		return err
	}
	if err := hypervisor.Unpack(hypervisorArchive, "/"); err != nil {
		return err
	}
	division, err := capacity.Load(filepath.Join(runDir, "state", "capacity"), runDir)
	if err != nil {
		return err
	}
	hyper, err := hypervisor.Read(hypervisorPath)
	if err != nil {
		return err
	}
	driver, err := driverOf(hyper, n.all)
	if err != nil {
		return err
	}
	if hyper.Version, err = hypervisor.Ask(ctx, n.log, hypervisorEvery, driver.Version, func(kind, detail string) error {
		return n.world.Records.Incident(-1, kind, "", detail)
	}); err != nil {
		return fmt.Errorf("hypervisor: %w", err)
	}
	if n.boot, err = vouched(bootTrust, n.state); err != nil {
		return err
	}
	if err := n.lazily(ctx); err != nil {
		return err
	}
	n.log.Info("hypervisor", "name", hyper.Name, "version", hyper.Version, "source", hyper.Source, "digest", hyper.Digest)
	n.world.Driver, n.world.Hypervisor = driver, hyper.Hypervisor
	if err := n.follower.Adopt(); err != nil {
		return err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.can = guests{true, division, hyper}
	return nil
}

// lazily has large images served while they arrive.
func (n *node) lazily(ctx context.Context) error {
	if err := imaged.Available(); err != nil {
		n.log.Warn("every image is fetched whole before its guest starts", "err", err)
		return nil
	}
	l := imaged.New(filepath.Join(runDir, imaged.Name), imagedPath, n.seed.Mirrors, imageDeadline, n.mirrors.Report, n.all.With("part", "imaged"))
	return n.world.Images.Lazy(ctx, l, imaged.LazyFrom)
}

// drivers waits until init has loaded what guests and packet filter need.
func (n *node) drivers(ctx context.Context) error {
	return n.ready(ctx, driversReady, "the drivers", "init loads what guests need", pollEvery)
}

// ready waits for a file that init writes; without an init there is nothing to
// wait for.
func (n *node) ready(ctx context.Context, file, what, detail string, every time.Duration) error {
	if !n.link.Present() {
		return nil
	}
	return wait.Until(ctx, n.log, what, detail, every, func() (bool, error) {
		_, err := os.Stat(file)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		return err == nil, err
	})
}

func driverOf(h hypervisor.Description, log *slog.Logger) (vm.Driver, error) {
	switch h.Name {
	case ch.Name:
		return ch.New(h.Path, log), nil
	case qemu.Name:
		return qemu.New(h.Path, "", log), nil
	}
	return nil, fmt.Errorf("hypervisor: no driver for %q", h.Name)
}

// capacity is what the node offers: the division of its memory, and the
// addresses at which gateways are reached now.
func (n *node) capacity() (ledger.Capacity, error) {
	g := n.guests()
	if !g.ready {
		return ledger.Capacity{}, errors.New("its drivers are still loading")
	}
	if err := capacity.KVM(); err != nil {
		return ledger.Capacity{}, err
	}
	c := ledger.Capacity{Arch: capacity.Arch(), VCPUs: capacity.VCPUs(), MemoryMiB: g.division.MemoryMiB, StorageMiB: g.division.StorageMiB,
		Hypervisor: g.hyper.Hypervisor, Addresses: []string{}, Boot: n.boot}
	for _, a := range n.uplink().Addresses {
		c.Addresses = append(c.Addresses, a.Addr().String())
	}
	return c, nil
}

// nodeKey is the node's identity. It lives as long as the node's state.
func nodeKey(path string) (sign.Signer, error) {
	none := func() ([]byte, error) { return nil, errors.New("the node's key has no passphrase") }
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		_, pem, err := sign.GenerateSigner()
		if err != nil {
			return nil, fmt.Errorf("make the node's key: %w", err)
		}
		if err := renameio.WriteFile(path, pem, 0o600); err != nil {
			return nil, fmt.Errorf("keep the node's key: %w", err)
		}
		// The ledger is about to know this key: it must outlast a power cut now.
		if err := syncDir(filepath.Dir(path)); err != nil {
			return nil, fmt.Errorf("keep the node's key: %w", err)
		}
	}
	s, err := sign.LoadSigner(path, none)
	if err != nil {
		return nil, fmt.Errorf("node's key: %w", err)
	}
	return s, nil
}

// syncDir makes the names in a folder last.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// imageName is what os-release says that this image is.
func imageName(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return "unknown: " + err.Error()
	}
	for scan := bufio.NewScanner(bytes.NewReader(b)); scan.Scan(); {
		if v, ok := strings.CutPrefix(scan.Text(), "PRETTY_NAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return "unknown: no PRETTY_NAME in " + path
}
