// SPDX-License-Identifier: Apache-2.0

package content

import (
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

func item(name string, size, used int64) Item {
	return Item{Path: name, Bytes: size * mib, Used: time.Unix(used, 0)}
}

func TestDecide(t *testing.T) {
	needed := func(i Item) Item { i.Needed = true; return i }
	wrong := func(i Item) Item { i.Quarantine = true; return i }
	all := []Item{item("new", 10, 9), needed(item("runs", 50, 0)), wrong(item("wrong", 5, 1)), item("old", 20, 2), item("older", 30, 1)}
	wide := Limits{Quota: 1000 * mib, Free: 1000 * mib}
	for name, c := range map[string]struct {
		items []Item
		need  Need
		l     Limits
		want  string // or "no"
	}{
		"it fits":                       {all, Need{Content: 885 * mib}, wide, ""},
		"by the quota":                  {all, Need{Content: 886 * mib}, wide, "older"},
		"as many as needed":             {all, Need{Content: 916 * mib}, wide, "older old"},
		"quarantine is last":            {all, Need{Content: 941 * mib}, wide, "older old new"},
		"but goes":                      {all, Need{Content: 946 * mib}, wide, "older old new wrong"},
		"never what runs":               {all, Need{Content: 951 * mib}, wide, "no"},
		"volumes have no quota":         {all, Need{Other: 1000 * mib}, wide, ""},
		"by the file system":            {all, Need{Other: 1001 * mib}, wide, "older"},
		"the reserve stays free":        {all, Need{Other: 990 * mib}, Limits{Quota: wide.Quota, Free: wide.Free, Reserve: 64 * mib}, "older old new"},
		"promised twice":                {all, Need{Content: 600 * mib}, Limits{Quota: wide.Quota, Free: wide.Free, Promised: 300 * mib}, "older"},
		"in vain, then nothing":         {all, Need{Other: 2000 * mib}, wide, "no"},
		"nothing there, no room":        {nil, Need{Content: 1}, Limits{}, "no"},
		"nothing needed, over by now":   {all, Need{}, Limits{Free: -mib}, "older"},
		"nothing there, nothing needed": {nil, Need{}, Limits{}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			before := slices.Clone(c.items)
			gone, err := Decide(c.items, c.need, c.l)
			if c.want == "no" {
				if !errors.Is(err, zimage.ErrNoRoom) || gone != nil {
					t.Errorf("%v, %v", gone, err)
				}
				return
			}
			var names []string
			for _, i := range gone {
				names = append(names, i.Path)
			}
			if got := strings.Join(names, " "); got != c.want || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			for i := range before {
				if before[i].Path != c.items[i].Path {
					t.Fatal("it has sorted its caller's list")
				}
			}
		})
	}
}

// TestDecideHolds: whatever the store and the limits are, nothing needed goes,
// what goes is enough and not more than that, and it was not used for longer
// than what stays.
func TestDecideHolds(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for range 20000 {
		var items []Item
		for n := r.IntN(8); n > 0; n-- {
			items = append(items, Item{Path: string(rune('a' + n)), Bytes: r.Int64N(20), Used: time.Unix(r.Int64N(5), 0), Needed: r.IntN(3) == 0, Quarantine: r.IntN(5) == 0})
		}
		need := Need{Content: r.Int64N(40), Other: r.Int64N(20)}
		l := Limits{Quota: r.Int64N(150), Free: r.Int64N(80), Reserve: r.Int64N(10), Promised: r.Int64N(20)}
		fits := func(gone []Item) bool {
			have, free := int64(0), l.Free
			for _, i := range items {
				if slices.ContainsFunc(gone, func(g Item) bool { return g.Path == i.Path }) {
					free += i.Bytes
				} else {
					have += i.Bytes
				}
			}
			return (need.Content == 0 || have+l.Promised+need.Content <= l.Quota) && need.Content+need.Other+l.Promised+l.Reserve <= free
		}
		gone, err := Decide(items, need, l)
		if err != nil {
			var idle []Item
			for _, i := range items {
				if !i.Needed {
					idle = append(idle, i)
				}
			}
			if len(gone) > 0 || fits(idle) {
				t.Fatalf("refused %+v of %+v under %+v", need, items, l)
			}
			continue
		}
		if !fits(gone) || len(gone) > 0 && fits(gone[:len(gone)-1]) {
			t.Fatalf("%+v go for %+v of %+v under %+v", gone, need, items, l)
		}
		for _, g := range gone {
			for _, i := range items {
				stays := !i.Needed && !slices.ContainsFunc(gone, func(g Item) bool { return g.Path == i.Path })
				if g.Needed || stays && g.Quarantine && !i.Quarantine || stays && g.Quarantine == i.Quarantine && i.Used.Before(g.Used) {
					t.Fatalf("%+v goes before %+v", g, i)
				}
			}
		}
	}
}
