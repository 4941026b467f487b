// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"reflect"
	"slices"
	"strings"
	"testing"
)

// What follows gives tests of package ledger_test a state that lies, in a way in
// which its snapshot is whole.

// Parts are the names of what a state is made of.
func (s *State) Parts() (names []string) {
	for _, p := range s.parts() {
		names = append(names, p.name)
	}
	return names
}

// Lie is the snapshot of a state in which one value of a part was altered,
// dropped, or added, in order and with what OpenSnapshot wants to find in it: the
// n-th of the values. It is nil where there is no such value, or no such part.
func (s *State) Lie(part, how string, n int) []byte {
	s = s.Clone()
	ok := false
	switch part {
	case "root":
		s.roots, ok = lied(s.roots, how, n, func(r *rootAt, by int64) { r.Index += by })
	case "node":
		ok = lieIn(&s.nodes, how, n, func(v *Node) { v.Used.MemoryMiB++ }, func(v *Node, at int64) { v.ID, v.Name, v.Index = "SHA256:evil", "evil", at })
	case "voucher":
		ok = lieIn(&s.vouchers, how, n, func(v *voucherUse) { v.Used = 0 }, func(v *voucherUse, _ int64) { v.ID = "evil" })
	case "deployment":
		ok = lieIn(&s.deployments, how, n, func(v *Deployment) { v.Attempt++ }, func(v *Deployment, at int64) { v.ID, v.Claims = at, nil })
	case "claim":
		ok = lieIn(&s.claims, how, n, func(v *Grant) { v.ExpiresMs += 1000 }, func(v *Grant, at int64) { v.Index = at })
	case "revocation":
		ok = lieIn(&s.revoked, how, n, func(v *Revocation) { v.KeyID = "SHA256:another" }, func(v *Revocation, at int64) { v.Index, v.KeyID = at, "SHA256:evil" })
	case "node-release":
		ok = lieIn(&s.releases, how, n, func(v *Released) { v.Digest = "sha256:evil" }, func(v *Released, at int64) { v.ID, v.Version = at, "6.6.6" })
	case "rollout":
		ok = lieIn(&s.rollouts, how, n, func(v *Rolled) { v.Failed += 100 }, func(v *Rolled, at int64) { v.ID = at })
	case "update":
		ok = lieIn(&s.updates, how, n, func(v *Updated) { v.Result = UpdateBlessed }, func(v *Updated, at int64) { v.Index, v.Name = at, "evil" })
	case "entry":
		ok = lieInList(&s.said, how, n, func(h *heard, by int64) { h.id[0] ^= 1; h.index += by })
	case "block":
		ok = lieInList(&s.bounds, how, n, func(b *bound, by int64) { b.root[0] ^= 1; b.size += by })
	}
	if !ok {
		return nil
	}
	return s.Snapshot()
}

// lied is a list with a lie in it. edit makes a value another one; one that is
// added stands that much behind the n-th.
func lied[T any](all []T, how string, n int, edit func(v *T, by int64)) ([]T, bool) {
	if n >= len(all) {
		return nil, false
	}
	all, v := slices.Clone(all), all[n]
	switch how {
	case "alter":
		edit(&v, 0)
		if reflect.DeepEqual(v, all[n]) {
			edit(&v, 1)
		}
		all[n] = v
	case "drop":
		all = slices.Delete(all, n, n+1)
	case "add":
		edit(&v, 1)
		all = slices.Insert(all, n+1, v)
	}
	return all, true
}

func lieInList[T any](l *list[T], how string, n int, edit func(v *T, by int64)) bool {
	var all []T
	for i := range l.len() {
		all = append(all, l.at(i))
	}
	all, ok := lied(all, how, n, edit)
	*l = list[T]{}
	for _, v := range all {
		l.add(v)
	}
	return ok
}

// lieIn does it to a table; an added value comes after all others.
func lieIn[T any](t *table[T], how string, n int, alter func(*T), rename func(v *T, at int64)) bool {
	if n >= t.len() {
		return false
	}
	v := *t.vals[n]
	switch how {
	case "alter":
		alter(&v)
		t.vals[n] = &v
	case "drop":
		t.keys, t.vals = slices.Delete(t.keys, n, n+1), slices.Delete(t.vals, n, n+1)
	case "add":
		at := t.keys[len(t.keys)-1] + 1
		rename(&v, at)
		t.keys, t.vals = append(t.keys, at), append(t.vals, &v)
	}
	return true
}

// TestPartsAreAll: whatever table or list of entries a state has is one of its
// parts, which the state root covers and a snapshot has.
func TestPartsAreAll(t *testing.T) {
	s := NewState()
	s.releases.put(1, Released{})
	listed := map[uintptr]bool{}
	for i, p := range s.inSnapshot() {
		listed[reflect.ValueOf(p.of).Pointer()] = true
		if p.place != i {
			t.Errorf("%s has place %d, want %d", p.name, p.place, i)
		}
	}
	n := 0
	v := reflect.ValueOf(s).Elem()
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if !strings.HasPrefix(f.Type.Name(), "table[") && !strings.HasPrefix(f.Type.Name(), "list[") && f.Name != "roots" {
			continue
		}
		n++
		if !listed[v.Field(i).Addr().Pointer()] {
			t.Errorf("State.%s is no part: parts() has to list it", f.Name)
		}
	}
	if n != len(listed) || n < 11 {
		t.Errorf("%d tables and lists, %d parts", n, len(listed))
	}
}
