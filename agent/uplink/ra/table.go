// SPDX-License-Identifier: Apache-2.0

package ra

import (
	"cmp"
	"maps"
	"net/netip"
	"slices"
	"time"
)

const (
	// twoHours: nobody shortens the life of an address below this by an
	// advertisement, which nothing authenticates (RFC 4862 5.5.3 e).
	twoHours = 2 * time.Hour
	// maxRouters, maxEntries bound what strangers on the link can make us keep.
	maxRouters = 16
	maxEntries = 16
)

// Table is what the routers of one link have said and what is still in force.
type Table struct {
	routers  map[netip.Addr]router
	prefixes map[netip.Prefix]prefix
	servers  map[netip.Addr]entry
	names    map[string]entry
	managed  bool
	other    bool
	mtu      int
	heard    bool
	order    int
}

type router struct {
	until      time.Time
	preference int
	order      int
}

type prefix struct {
	Prefix
	valid, preferred time.Time
}

type entry struct {
	until time.Time
	order int
}

// NewTable knows nothing.
func NewTable() *Table {
	return &Table{routers: map[netip.Addr]router{}, prefixes: map[netip.Prefix]prefix{}, servers: map[netip.Addr]entry{}, names: map[string]entry{}}
}

// Add takes in what the router from said at now.
func (t *Table) Add(now time.Time, from netip.Addr, a *Advert) {
	t.drop(now)
	t.heard, t.managed, t.other = true, a.Managed, a.Other
	if a.MTU != 0 {
		t.mtu = a.MTU
	}
	if a.Lifetime == 0 {
		delete(t.routers, from)
	} else if old, known := t.routers[from]; known || len(t.routers) < maxRouters {
		if !known {
			t.order++
			old.order = t.order
		}
		t.routers[from] = router{now.Add(a.Lifetime), a.Preference, old.order}
	}
	for _, p := range a.Prefixes {
		t.addPrefix(now, p)
	}
	for _, s := range a.RDNSS {
		hold(t, t.servers, s.Address, now, s.Lifetime)
	}
	for _, n := range a.DNSSL {
		hold(t, t.names, n.Name, now, n.Lifetime)
	}
}

func (t *Table) addPrefix(now time.Time, p Prefix) {
	old, known := t.prefixes[p.Prefix]
	valid := p.Valid
	if known {
		if left := old.valid.Sub(now); valid < twoHours && valid < left {
			valid = min(left, twoHours)
		}
	} else if p.Valid == 0 || len(t.prefixes) >= maxEntries {
		return
	}
	t.prefixes[p.Prefix] = prefix{p, now.Add(valid), now.Add(p.Preferred)}
}

func hold[K comparable](t *Table, m map[K]entry, key K, now time.Time, lifetime time.Duration) {
	old, known := m[key]
	switch {
	case lifetime == 0:
		delete(m, key)
	case known:
		m[key] = entry{now.Add(lifetime), old.order}
	case len(m) < maxEntries:
		t.order++
		m[key] = entry{now.Add(lifetime), t.order}
	}
}

// drop forgets what is over.
func (t *Table) drop(now time.Time) {
	maps.DeleteFunc(t.routers, func(_ netip.Addr, r router) bool { return !now.Before(r.until) })
	maps.DeleteFunc(t.prefixes, func(_ netip.Prefix, p prefix) bool { return !now.Before(p.valid) })
	maps.DeleteFunc(t.servers, func(_ netip.Addr, e entry) bool { return !now.Before(e.until) })
	maps.DeleteFunc(t.names, func(_ string, e entry) bool { return !now.Before(e.until) })
}

// View is what is in force at one time, in a fixed order.
type View struct {
	Heard    bool // any router was heard
	Managed  bool
	Other    bool
	MTU      int
	Routers  []netip.Addr // link-local, the best first
	Prefixes []Held
	RDNSS    []netip.Addr
	DNSSL    []string
}

// Held is a prefix with the times at which its addresses end, zero for never.
type Held struct {
	Prefix           netip.Prefix
	OnLink           bool
	Autonomous       bool
	Preferred, Valid time.Time
}

// At is the view at now, and when it changes next by itself (zero: never).
func (t *Table) At(now time.Time) (View, time.Time) {
	t.drop(now)
	var next time.Time
	until := func(x time.Time) {
		if x.After(now) && (next.IsZero() || x.Before(next)) {
			next = x
		}
	}
	v := View{Heard: t.heard, Managed: t.managed, Other: t.other, MTU: t.mtu}
	v.Routers = slices.SortedFunc(maps.Keys(t.routers), func(a, b netip.Addr) int {
		x, y := t.routers[a], t.routers[b]
		return cmp.Or(cmp.Compare(y.preference, x.preference), cmp.Compare(x.order, y.order))
	})
	for _, r := range t.routers {
		until(r.until)
	}
	for _, key := range slices.SortedFunc(maps.Keys(t.prefixes), netip.Prefix.Compare) {
		p := t.prefixes[key]
		until(p.valid)
		until(p.preferred)
		h := Held{Prefix: key, OnLink: p.OnLink, Autonomous: p.Autonomous}
		if p.Valid < Forever {
			h.Valid = p.valid
		}
		if p.Preferred < Forever {
			h.Preferred = p.preferred
		}
		v.Prefixes = append(v.Prefixes, h)
	}
	byOrder := func(x, y entry) int { return cmp.Compare(x.order, y.order) }
	v.RDNSS = slices.SortedFunc(maps.Keys(t.servers), func(a, b netip.Addr) int { return byOrder(t.servers[a], t.servers[b]) })
	v.DNSSL = slices.SortedFunc(maps.Keys(t.names), func(a, b string) int { return byOrder(t.names[a], t.names[b]) })
	for _, e := range t.servers {
		until(e.until)
	}
	for _, e := range t.names {
		until(e.until)
	}
	return v, next
}
