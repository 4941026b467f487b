// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"maps"
	"slices"
)

// What a state knows of every entry that there ever was only grows, and a state
// is copied again and again: by a client for each checkpoint, by a server for
// each snapshot. So copies of these two share what they had when they were
// made, and a copy costs next to nothing however long the log is.

// list is a list that only grows. The zero list is empty.
type list[T any] struct {
	full [][]T // of chunk members each; they never change
	rest []T
}

const chunk = 1024

func (l *list[T]) len() int { return len(l.full)*chunk + len(l.rest) }

func (l *list[T]) at(i int) T {
	if n := i / chunk; n < len(l.full) {
		return l.full[n][i%chunk]
	}
	return l.rest[i%chunk]
}

func (l *list[T]) add(v T) {
	if l.rest = append(l.rest, v); len(l.rest) == chunk {
		l.full, l.rest = append(l.full, l.rest), nil
	}
}

// clone is a copy. What is added to one does not show in the other: the clipped
// slices of the copy have no room that they share.
func (l *list[T]) clone() list[T] { return list[T]{slices.Clip(l.full), slices.Clip(l.rest)} }

// positions are where in the log things were said. Nothing is ever changed or
// taken out. The zero positions are empty.
type positions struct {
	// levels never change. Each holds more than all after it together, so
	// there are as many as the logarithm of what they hold.
	levels []map[sum]int64
	top    map[sum]int64
}

// positionsOf takes a map as it is.
func positionsOf(all map[sum]int64) positions { return positions{levels: []map[sum]int64{all}} }

func (p *positions) get(id sum) (int64, bool) {
	at, ok := p.top[id]
	for i := len(p.levels) - 1; !ok && i >= 0; i-- {
		at, ok = p.levels[i][id]
	}
	return at, ok
}

// put adds one that is not there yet.
func (p *positions) put(id sum, at int64) {
	if p.top == nil {
		p.top = map[sum]int64{}
	}
	if p.top[id] = at; len(p.top) < chunk {
		return
	}
	level, n := p.top, len(p.levels)
	for ; n > 0 && len(p.levels[n-1]) <= len(level); n-- {
		both := make(map[sum]int64, len(p.levels[n-1])+len(level))
		maps.Copy(both, p.levels[n-1])
		maps.Copy(both, level)
		level = both
	}
	p.levels, p.top = append(slices.Clone(p.levels[:n]), level), nil // a copy may have the old ones
}

func (p *positions) clone() positions { return positions{slices.Clip(p.levels), maps.Clone(p.top)} }
