// SPDX-License-Identifier: Apache-2.0

package mount

import (
	"errors"
	"slices"
	"strings"
	"testing"
)

func TestTable(t *testing.T) {
	seen := []string{"/"}
	for _, p := range Table() {
		parent := p.Target[:max(1, strings.LastIndex(p.Target, "/"))]
		within := slices.ContainsFunc(seen, func(s string) bool { return s == parent || strings.HasPrefix(parent, s+"/") || s == "/" })
		if !within {
			t.Errorf("%s is mounted before what it stands in", p.Target)
		}
		if slices.Contains(seen, p.Target) {
			t.Errorf("%s is mounted twice", p.Target)
		}
		seen = append(seen, p.Target)
	}
}

func TestAllGoesOn(t *testing.T) {
	bad := errors.New("bad")
	var tried []string
	err := All([]Point{{Target: "/a"}, {Target: "/b", Optional: true}, {Target: "/c"}}, func(p Point) error {
		tried = append(tried, p.Target)
		if p.Target == "/c" {
			return nil
		}
		return bad
	})
	if !errors.Is(err, bad) || strings.Count(err.Error(), "bad") != 1 {
		t.Errorf("error %v: want that of /a alone", err)
	}
	if want := []string{"/a", "/b", "/c"}; !slices.Equal(tried, want) {
		t.Errorf("tried %v, want %v", tried, want)
	}
}

func TestUndo(t *testing.T) {
	info := `21 1 0:20 / /proc rw,nosuid - proc proc rw
30 1 8:1 / /run/zos/medium ro - vfat /dev/vda1 ro
31 1 8:2 / /run/zos/medium/inner rw - ext4 /dev/vda2 rw
32 1 0:9 / /run rw - tmpfs run rw`
	if got, want := Undo(info), []string{"/run/zos/medium/inner", "/run/zos/medium"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func TestDrivers(t *testing.T) {
	for there, want := range map[bool]int{true: len(drivers), false: 0} {
		if got := Drivers(func(string) bool { return there }); len(got) != want {
			t.Errorf("firmware %v: %v", there, got)
		}
	}
	all := []Driver{{Point{Target: "/a"}, "a", "/x"}, {Point{Target: "/b"}, "b", "/y"}}
	if got := here(all, func(path string) bool { return path == "/y" }); len(got) != 1 || got[0].Target != "/b" {
		t.Errorf("%v", got)
	}
	for _, d := range drivers {
		if d.Module == "" || d.In == "" {
			t.Errorf("%s needs no module, so it belongs to the first table", d.Target)
		}
	}
}
