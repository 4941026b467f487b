// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"math/rand/v2"
	"testing"
)

// TestGrowing: copies that go on in different ways, at any size, know what they
// were told and nothing of each other. Slices and maps of their own are the
// judge.
func TestGrowing(t *testing.T) {
	type told struct {
		list  list[int64]
		where positions
		all   []int64
		index map[sum]int64
	}
	id := func(n int64) sum { return sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n))) }
	rng := rand.New(rand.NewPCG(1, 2))
	several := []*told{{index: map[sum]int64{}}}
	next := int64(0)
	for range 25 {
		k := several[rng.IntN(len(several))]
		for range rng.IntN(3 * chunk) {
			k.list.add(next)
			k.where.put(id(next), next)
			k.all, k.index[id(next)] = append(k.all, next), next
			next++
		}
		if c := several[rng.IntN(len(several))]; len(several) < 8 {
			copied := &told{list: c.list.clone(), where: c.where.clone(), all: append([]int64{}, c.all...), index: map[sum]int64{}}
			for k, v := range c.index {
				copied.index[k] = v
			}
			several = append(several, copied)
		}
	}
	for n, k := range several {
		if k.list.len() != len(k.all) {
			t.Fatalf("copy %d has %d members, want %d", n, k.list.len(), len(k.all))
		}
		for i, want := range k.all {
			if got := k.list.at(i); got != want {
				t.Fatalf("copy %d: member %d is %d, want %d", n, i, got, want)
			}
		}
		for i := range next {
			got, ok := k.where.get(id(i))
			if want, there := k.index[id(i)]; ok != there || got != want {
				t.Fatalf("copy %d: %d is at %d, %v; want %d, %v", n, i, got, ok, want, there)
			}
		}
		if most := bits.Len(uint(len(k.all)/chunk)) + 1; len(k.where.levels) > most {
			t.Errorf("copy %d has %d levels for %d members, want at most %d", n, len(k.where.levels), len(k.all), most)
		}
	}
}
