// SPDX-License-Identifier: Apache-2.0

package uplink

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/zos-node/zos/agent/seed"
	"github.com/zos-node/zos/agent/uplink/ra"
	"github.com/zos-node/zos/agent/wait"
)

const (
	// The links are looked at this often: often while something is awaited.
	lookSoon  = 50 * time.Millisecond
	lookOften = 500 * time.Millisecond

	reachEvery = 2 * time.Second
	reachLimit = 10 * time.Second
	// A link that gives addresses but no ledger is held against it first after
	// holdFirst, then after twice as long each time: no two such links take
	// turns in a hurry.
	holdFirst = 10 * time.Second
	holdLast  = 10 * time.Minute
	// strange is how long after its cable came back a link's old leases may be
	// unconfirmed when something else was confirmed.
	strange = 30 * time.Second
)

// session is one configuration at work.
type session struct {
	u       *Uplink
	cfg     *seed.Network
	limit   time.Duration
	started time.Time
	seen    time.Time // when there was an uplink last
	outcome outcome

	links   map[int]*link // by index
	order   []*link
	current int // index of the uplink's link, 0 for none
	plan    Plan
	since   time.Time // of the plan's link
	up      Up
	probing bool
	nextTry time.Time
	events  chan event
	results chan result
	line    *wait.Line
}

// link is one link and what is known of it.
type link struct {
	netlink.Link
	facts Facts
	table *ra.Table
	port  *port
	// back is when carrier came back; the facts from before are to be
	// confirmed. Zero: nothing is.
	back   time.Time
	v4, v6 bool // confirmed since
}

// event is what a client of a port has to say.
type event struct {
	port   *port
	change func(*link)
}

type result struct {
	index int
	since time.Time
	err   error
}

func newSession(u *Uplink, cfg *seed.Network, limit time.Duration) *session {
	now := u.Clock.Now()
	return &session{u: u, cfg: cfg, limit: limit, started: now, seen: now, links: map[int]*link{}}
}

// run works until ctx is over, something breaks, or the time of a
// configuration is over that does not work.
func (s *session) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.events, s.results, s.probing = make(chan event), make(chan result, 1), false
	for _, l := range s.links {
		l.port = nil // ended with the last run
	}
	if names := driversOf(s.cfg); len(names) > 0 && s.u.Drivers != nil {
		if err := s.u.Drivers(names); err != nil {
			return fmt.Errorf("drivers of the uplink: %w", err)
		}
	}
	if err := unstack(s.cfg); err != nil {
		return err
	}
	s.line = wait.Start(s.u.Log, s.u.Clock.Now(), "an uplink", "")
	for {
		s.u.Moved()
		now := s.u.Clock.Now()
		if err := s.observe(ctx, now); err != nil {
			return err
		}
		if err := s.put(now); err != nil {
			return err
		}
		if s.over(now) {
			return errors.Join(s.away(), limitError("the ledger was not reached", s.limit))
		}
		s.probe(ctx, now)
		every := lookOften
		if len(s.up.Addresses) == 0 || len(s.up.Addresses) < len(s.plan.Addresses) {
			every = lookSoon
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.u.Clock.After(every):
		case e := <-s.events:
			for _, l := range s.links {
				if l.port == e.port {
					e.change(l)
				}
			}
		case r := <-s.results:
			s.tested(r, s.u.Clock.Now())
		}
	}
}

// over says whether the configuration has had its time: it never reached the
// ledger, or it did and there has been no uplink for as long.
func (s *session) over(now time.Time) bool {
	if s.limit == 0 {
		return false
	}
	if s.outcome.proven {
		return now.Sub(s.seen) > s.limit
	}
	return now.Sub(s.started) > s.limit
}

// observe brings the facts of all links up to date, and has clients run on
// those where they are needed.
func (s *session) observe(ctx context.Context, now time.Time) error {
	found, err := stack(s.cfg)
	if err != nil {
		return err
	}
	s.order = s.order[:0]
	there := map[int]bool{}
	for _, f := range found {
		a := f.Attrs()
		there[a.Index] = true
		l := s.links[a.Index]
		if l == nil {
			l = &link{table: ra.NewTable()}
			s.links[a.Index] = l
			s.u.Log.Info("link", "link", a.Name, "mac", a.HardwareAddr.String(), "mtu", a.MTU, "carrier", carrier(a))
		} else if has := carrier(a); has != l.facts.Carrier {
			s.u.Log.Info("carrier", "link", a.Name, "carrier", has)
			if has && l.port != nil {
				s.returned(l, now)
			}
		}
		l.Link, l.facts.Name, l.facts.MAC, l.facts.Carrier = f, a.Name, a.HardwareAddr, carrier(a)
		s.order = append(s.order, l)
	}
	for index, l := range s.links {
		if !there[index] {
			s.u.Log.Warn("link is gone", "link", l.facts.Name)
			l.close()
			delete(s.links, index)
		}
	}
	for _, l := range s.order {
		l.facts.Routers, _ = l.table.At(now)
		s.clients(ctx, l)
		s.confirm(l, now)
	}
	return nil
}

// returned handles a cable that was out: it may lead somewhere else now, so
// everything is asked again. What was known stays until the answers are there.
func (s *session) returned(l *link, now time.Time) {
	l.close()
	l.back, l.v4, l.v6 = now, false, false
	if l.Attrs().Index == s.current {
		s.up.Proven, s.since, s.nextTry = s.u.Reach == nil, now, now
	}
}

// confirm lets go what an old network gave, once the new one has given
// something and the ledger cannot be reached with what there is.
func (s *session) confirm(l *link, now time.Time) {
	if l.back.IsZero() {
		return
	}
	if l.Attrs().Index == s.current && s.up.Proven && s.u.Reach != nil {
		l.back = time.Time{}
	}
	if now.Sub(l.back) < strange || l.v4 == l.v6 {
		return
	}
	if l.v4 {
		l.facts.V6, l.table = nil, ra.NewTable()
	} else {
		l.facts.V4 = nil
	}
	l.back = time.Time{}
}

// put makes what Decide says stand, and tells the rest of the agent.
func (s *session) put(now time.Time) error {
	var facts []Facts
	for _, l := range s.order {
		facts = append(facts, l.facts)
	}
	name := ""
	if l := s.links[s.current]; l != nil {
		name = l.facts.Name
	}
	plan := Decide(s.cfg, facts, name, now)
	if !plan.Usable() && !s.plan.Usable() {
		s.line.Detail(s.missing())
		s.line.Tick(now)
		return nil
	}
	if !plan.Equal(s.plan) {
		if err := s.change(plan, now); err != nil {
			return err
		}
	}
	l := s.links[s.current]
	if l == nil {
		s.show(Up{Link: s.up.Link}) // lost, but still the outside for the packet filter
		return nil
	}
	got, err := fateOf(l, plan)
	if err != nil {
		return err
	}
	for _, p := range got.missing {
		if p.Addr().Is6() && !slices.Contains(s.up.Addresses, p) {
			// The kernel deletes an address with a lifetime that turns out to
			// be somebody else's, before it could ever be used.
			got.duplicates = append(got.duplicates, p.Addr())
			continue
		}
		s.u.Log.Warn("address has gone", "link", plan.Link, "address", p)
		s.plan = Plan{} // put in place again
	}
	for _, d := range got.duplicates {
		if !slices.Contains(l.facts.Duplicates, d) {
			s.u.Log.Error("address is in use by another", "link", plan.Link, "address", d)
			l.facts.Duplicates = append(l.facts.Duplicates, d)
		}
	}
	if len(got.usable) > 0 {
		s.outcome.addressed, s.seen = true, now
		s.line = wait.Start(s.u.Log, now, "an uplink", "")
	}
	s.show(Up{Link: plan.Link, Addresses: got.usable, NTP: plan.NTP, Proven: s.up.Proven})
	return nil
}

// change puts a plan in the place of the one that stands.
func (s *session) change(plan Plan, now time.Time) error {
	var next *link
	for _, l := range s.order {
		if l.facts.Name == plan.Link {
			next = l
		}
	}
	for _, l := range s.order {
		if l != next { // an address is on one link only
			if err := clearLink(l); err != nil {
				return err
			}
		}
	}
	index := 0
	if next != nil {
		if err := apply(next, plan, now); err != nil {
			return err
		}
		index = next.Attrs().Index
	}
	if err := writeResolv(s.u.Resolv, plan); err != nil {
		return err
	}
	if !sameWay(plan, s.plan) {
		var addresses []netip.Prefix
		for _, a := range plan.Addresses {
			addresses = append(addresses, a.Prefix)
		}
		s.u.Log.Info("uplink", "link", plan.Link, "addresses", addresses, "routers", plan.Routers, "dns", plan.DNS)
		s.since, s.nextTry, s.up.Proven = now, now, s.u.Reach == nil && plan.Usable()
	}
	s.plan, s.current = plan, index
	return nil
}

// sameWay says whether two plans differ in lifetimes and names at most.
func sameWay(a, b Plan) bool {
	return a.Link == b.Link && slices.Equal(a.Routers, b.Routers) &&
		slices.EqualFunc(a.Addresses, b.Addresses, func(x, y Address) bool { return x.Prefix == y.Prefix })
}

// away takes everything off, for the next configuration.
func (s *session) away() error {
	var errs []error
	for _, l := range s.order {
		errs = append(errs, clearLink(l))
	}
	s.plan, s.current = Plan{}, 0
	s.show(Up{})
	return errors.Join(append(errs, writeResolv(s.u.Resolv, Plan{}))...)
}

func (s *session) show(up Up) {
	if len(up.Addresses) == 0 {
		up.Proven = false
	}
	if up.Link != s.up.Link || up.Proven != s.up.Proven || !slices.Equal(up.Addresses, s.up.Addresses) || !slices.Equal(up.NTP, s.up.NTP) {
		s.up = up
		s.u.Changed(up)
	}
}

// probe tests the uplink against the ledger until that succeeds.
func (s *session) probe(ctx context.Context, now time.Time) {
	if s.u.Reach == nil {
		s.outcome.proven = s.outcome.proven || s.up.Proven
		return
	}
	if s.up.Proven || s.probing || len(s.up.Addresses) == 0 || now.Before(s.nextTry) {
		return
	}
	s.probing = true
	r := result{index: s.current, since: s.since}
	results := s.results
	go func() {
		ctx, cancel := context.WithTimeout(ctx, reachLimit)
		defer cancel()
		r.err = s.u.Reach(ctx)
		results <- r
	}()
}

func (s *session) tested(r result, now time.Time) {
	s.probing, s.nextTry = false, now.Add(reachEvery)
	l := s.links[r.index]
	if l == nil || r.index != s.current || !r.since.Equal(s.since) {
		return // of an uplink that is no more
	}
	if r.err == nil {
		l.facts.Failed = 0
		up := s.up
		up.Proven = true
		s.u.Log.Info("the ledger is reached", "link", l.facts.Name)
		if len(up.Addresses) > 0 {
			s.outcome.proven = true
			s.u.keep(s.cfg)
		}
		s.show(up)
		return
	}
	if hold := min(cmp.Or(s.u.Hold, holdFirst)<<min(l.facts.Failed, 10), holdLast); now.Sub(s.since) >= hold {
		l.facts.Failed++
		s.since = now
		s.u.Log.Warn("the ledger is not reached", "link", l.facts.Name, "elapsed", hold, "err", r.err)
	}
}

// missing says of each link what an address is waited for.
func (s *session) missing() string {
	if len(s.order) == 0 {
		if len(s.cfg.Links) > 0 {
			return "a network card of " + strings.Join(s.cfg.Links, ", ")
		}
		return "a network card"
	}
	var out []string
	for _, l := range s.order {
		what := "no carrier"
		if l.facts.Carrier {
			what = "IPv4 " + s.cfg.IPv4.Mode + ", IPv6 " + s.cfg.IPv6.Mode
			if l.facts.Routers.Heard {
				what += ", a router was heard"
			}
		}
		out = append(out, fmt.Sprintf("%s: %s", l.facts.Name, what))
	}
	return strings.Join(out, "; ")
}
