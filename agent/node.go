// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/clock"
	"github.com/zos-node/zos/agent/deploy"
	"github.com/zos-node/zos/agent/follow"
	"github.com/zos-node/zos/agent/initlink"
	"github.com/zos-node/zos/agent/lastwords"
	"github.com/zos-node/zos/agent/network"
	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/state"
	"github.com/zos-node/zos/agent/update"
	"github.com/zos-node/zos/agent/uplink"
	"github.com/zos-node/zos/agent/wait"
	"github.com/zos-node/zos/kernel/kmod"
	"github.com/zos-node/zos/ledger"
)

const (
	// initFD is where init put its end of the line.
	initFD = 3
	// runDir holds what a restarted agent needs; it is a tmpfs.
	runDir     = "/run/zos"
	resolvConf = "/etc/resolv.conf"
	// bootReady appears when init has loaded what a boot needs, driversReady when
	// it has loaded what guests need.
	bootReady    = "/run/boot-ready"
	driversReady = "/run/drivers-ready"
	// disksKnown appears when a disk that looks like the node's own would have
	// shown up.
	disksKnown = "/run/disks-known"

	// Limits after which a silent loop costs the agent its heartbeat. Waits in
	// a loop are far shorter.
	followLimit = 5 * time.Minute
	recordLimit = 5 * time.Minute
	uplinkLimit = 2 * time.Minute
	// endTime is within the 90 s that init gives. Where nobody waits for the end
	// of the machine, guests get what their specs give them, and this beside it.
	endTime   = 75 * time.Second
	saveClock = time.Minute
	pollEvery = 20 * time.Millisecond
	bootEvery = 2 * time.Millisecond // in the way of every boot
	// clockAhead is the kind of the incident that tells of a clock that was.
	clockAhead   = "clock-ahead"
	dialTimeout  = 5 * time.Second
	replyTimeout = 15 * time.Second
)

// node is the agent, put together.
type node struct {
	all      *slog.Logger // without a part
	log      *slog.Logger
	link     *initlink.Link
	progress *initlink.Progress
	seed     *seed.Seed
	state    *state.State
	boot     ledger.Boot // written before guests are possible
	manager  *network.Manager
	web      *http.Client
	world    *deploy.World
	ledger   *follow.Ledger
	follower *follow.Follower
	about    update.About // the image that runs
	updater  *update.Updater
	mirrors  *follow.Mirrors
	reports  *lastwords.Taker

	mu     sync.Mutex
	who    who
	can    guests
	up     uplink.Up
	bounds clock.Bounds // its Ledger as of live
	live   time.Time
	block  time.Time // the ledger's time as of the last Sync
	synced time.Time // when the ledger was last heard
	saved  time.Time // of the clock
	stuck  bool      // the clock cannot be set, and that was said

	reached sync.Once // init was told that the ledger is
}

// run is the life of the agent: clock, seed, network, what an earlier agent
// left, and then whatever the ledger says until init wants the node down.
func run(ctx context.Context, log *slog.Logger, board *wait.Board) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	part := func(name string) *slog.Logger { return log.With("part", name) }
	n := &node{all: log, log: part("agent"), progress: initlink.NewProgress(time.Now), manager: network.NewManager(network.Linux{}),
		web: &http.Client{Transport: transport()}}
	var err error
	if n.link, err = initlink.Open(initFD, part("init")); err != nil {
		return err
	}
	words := n.link.Words(ctx)
	go n.link.Beat(ctx, initlink.Every, n.progress.Healthy)
	if err := os.MkdirAll(filepath.Join(runDir, "state"), 0o700); err != nil {
		return fmt.Errorf("make %s: %w", runDir, err)
	}
	n.start()
	go n.tell(ctx, board)
	if err := n.ready(ctx, bootReady, "the first drivers", "init loads what a boot needs", bootEvery); err != nil {
		return err
	}
	if n.seed, err = seed.Load(ctx, part("seed")); err != nil {
		return err
	}
	n.known(who{name: n.seed.Name})
	if err := n.keep(); err != nil {
		return err
	}
	reach, err := n.reach()
	if err != nil {
		return err
	}
	u := &uplink.Uplink{Configs: n.seed.Networks, Host: n.seed.Name, Resolv: resolvConf, Good: filepath.Join(runDir, "state", "network"), Clock: clock.System{},
		Log: part("uplink"), Changed: n.changed, Moved: func() { n.progress.Moved("uplink", uplinkLimit) }, Reach: reach,
		Drivers: func(names []string) error {
			var all []kmod.Wanted
			for _, name := range names {
				all = append(all, kmod.Wanted{Name: name})
			}
			return kmod.LoadAll(all)
		}}
	go u.Run(ctx)
	if err := n.keepState(ctx, words, part("state")); err != nil {
		return err
	}
	t := &clock.Sync{Servers: func() []string { return n.uplink().NTP }, Bounds: n.timeBounds, Step: clock.Set, Slew: clock.Slew,
		Stamp: filepath.Join(runDir, "state", "stepped"), Clock: clock.System{}, Log: part("clock")}
	go t.Run(ctx)
	if err := n.assemble(ctx, part); err != nil {
		return err
	}
	ended := make(chan error, 2)
	go func() { ended <- n.follow(ctx) }()
	go func() {
		if err := n.prepare(ctx); err != nil {
			ended <- err
		}
	}()
	go func() {
		// The loader's word about this start is there once drivers are loaded.
		if err := n.ownDisk(ctx); err == nil {
			n.updater.Run(ctx)
		}
	}()
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	for {
		select {
		case err := <-ended:
			return err
		case s := <-signals:
			n.down("the agent was told to end by "+s.String(), endTime)
			return nil
		case w := <-words:
			if w != initlink.Shutdown {
				n.log.Warn("unknown word from init", "word", w)
				continue
			}
			n.down("the node shuts down", endTime)
			// init ends this process when the machine goes down; until then
			// the heart beats.
			if err := n.link.Send(initlink.PowerOff); err != nil {
				return err
			}
		}
	}
}

func transport() http.RoundTripper {
	t := http.DefaultTransport.(*http.Transport).Clone()
	t.Proxy = nil
	t.DialContext = dialer()
	t.ResponseHeaderTimeout = replyTimeout
	t.MaxConnsPerHost = 8
	return t
}

// start gives the clock a time that can be right. A clock that cannot be set
// must not stop the boot.
func (n *node) start() {
	floor, from := clock.Floor(n.log, clock.Release(seed.ReleasePath), clock.Kernel(), clock.Program(), clock.File("saved", n.clockPath()))
	n.mu.Lock()
	n.bounds.Floor = floor
	n.mu.Unlock()
	if err := clock.Start(n.log, time.Now(), clock.File("rtc", clock.RTCPath), floor, from, clock.Set); err != nil {
		n.log.Error("clock", "err", err)
	}
}

// clockPath is where the time is kept: over a reboot, once the state is open.
func (n *node) clockPath() string {
	if n.state != nil {
		return filepath.Join(n.state.Dir, "clock")
	}
	return filepath.Join(runDir, "state", "clock")
}

// ledgerTime hears of the ledger's time with each Sync. When it has moved
// since the last one, a block has just arrived, and it is about now.
func (n *node) ledgerTime(t time.Time) {
	n.reached.Do(func() {
		if err := n.link.Send(initlink.Following); err != nil && n.link.Present() {
			n.log.Warn("init waits for word of the ledger", "err", err)
		}
	})
	now := time.Now()
	err := clock.Forward(n.log, now, t, "ledger", clock.Set)
	if err != nil && !n.stuck {
		n.log.Error("clock", "err", err)
	}
	n.stuck = err != nil
	n.mu.Lock()
	if !n.block.IsZero() && t.After(n.block) {
		n.bounds.Ledger, n.live = t, now
	}
	n.block, n.synced = t, now
	if t.After(n.bounds.Floor) {
		n.bounds.Floor = t
	}
	n.mu.Unlock()
	n.back(now)
	if now.Sub(n.saved).Abs() < saveClock {
		return
	}
	n.saved = now
	// What the ledger said, not what this machine's clock shows.
	if err := clock.Save(n.clockPath(), t); err != nil {
		n.log.Error("clock", "err", err)
	}
}

// back sets a clock back that is far ahead of the ledger, and records that.
func (n *node) back(now time.Time) {
	latest, ok := n.ledger.Latest(now)
	if !ok {
		return
	}
	n.mu.Lock()
	floor := n.bounds.Floor
	n.mu.Unlock()
	to, back := clock.Back(now, latest, floor)
	if !back {
		return
	}
	text := fmt.Sprintf("the clock showed %s, and is set back to %s: the ledger holds what this node has just said, in a block of that time",
		now.UTC().Format(time.RFC3339), to.UTC().Format(time.RFC3339))
	err := clock.Set(to)
	if err == nil {
		n.log.Warn("clock set back", "from", now.UTC().Format(time.RFC3339), "to", to.UTC().Format(time.RFC3339), "source", "ledger")
		err = errors.Join(clock.SetRTC(to), n.world.Records.Incident(-1, clockAhead, "", text))
	}
	if err != nil {
		n.log.Error("clock", "err", err)
	}
}

// timeBounds are what is known of the time now.
func (n *node) timeBounds() clock.Bounds {
	n.mu.Lock()
	defer n.mu.Unlock()
	b := n.bounds
	if !b.Ledger.IsZero() {
		b.Ledger = b.Ledger.Add(time.Since(n.live))
	}
	return b
}

// reach is the test of an uplink: whether the ledger that the image trusts
// answers there.
func (n *node) reach() (func(context.Context) error, error) {
	envelope, err := seed.Root(seed.RootPath)
	if err != nil {
		return nil, err
	}
	root, _, err := ledger.DecodeRoot(envelope)
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return follow.Reach(ctx, n.web, root.Log.Origin, n.seed.Ledger) }, nil
}

// changed hears of the uplink.
func (n *node) changed(up uplink.Up) {
	n.mu.Lock()
	moved := up.Link != n.up.Link || !slices.Equal(up.Addresses, n.up.Addresses)
	n.up = up
	n.mu.Unlock()
	if moved { // connections of the old way would be waited for in vain
		n.web.CloseIdleConnections()
	}
	if err := n.manager.SetUplink(up.Link, up.Addresses); err != nil {
		n.log.Error("uplink", "err", err)
	}
	if err := os.WriteFile(n.uplinkPath(), []byte(up.Link), 0o600); err != nil {
		n.log.Error("uplink", "err", err)
	}
}

func (n *node) uplinkPath() string { return filepath.Join(runDir, "state", "uplink") }

func (n *node) uplink() uplink.Up {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

// keep tells the network manager what an earlier agent left running, so that
// putting the rules in force does not cut it off.
func (n *node) keep() error {
	states, err := deploy.States(runDir)
	if err != nil {
		return err
	}
	for _, s := range states {
		if s.Adoptable() {
			n.manager.Keep(s.Deployment, &s.Plan.Network)
		}
	}
	b, err := os.ReadFile(n.uplinkPath())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("uplink: %w", err)
	}
	return n.manager.SetUplink(string(b), nil)
}

// follow follows the ledger as soon as there is a network.
func (n *node) follow(ctx context.Context) error {
	err := wait.Until(ctx, n.log, "the network", "an address on the uplink", pollEvery, func() (bool, error) {
		n.progress.Moved("follow", followLimit)
		return len(n.uplink().Addresses) > 0, nil
	})
	if err != nil {
		return err
	}
	return n.follower.Run(ctx)
}

// down ends everything in order, within a time.
func (n *node) down(reason string, within time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), within)
	defer cancel()
	// What init says of this end goes with it.
	if err := n.reports.Take(); err != nil {
		n.log.Warn("what happened to this node cannot be recorded", "err", err)
	}
	if err := n.follower.Shutdown(ctx, reason); err != nil {
		n.log.Error("not everything ended in order", "err", err)
	}
}
