// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"slices"
)

type sum = [sha256.Size]byte

// table keeps values by the log index of the entry that made them, in that
// order, under a Merkle tree of their canonical JSON: a change costs as many
// hashes as the tree is high, and the digest of all is there at once. Values
// are replaced, never changed.
type table[T any] struct {
	keys []int64
	vals []*T
	// tree[0] are the leaves; a node of the level above stands for two, or for
	// the last alone.
	tree [][]sum
}

func (t *table[T]) clone() table[T] {
	c := table[T]{slices.Clone(t.keys), slices.Clone(t.vals), make([][]sum, len(t.tree))}
	for i := range t.tree {
		c.tree[i] = slices.Clone(t.tree[i])
	}
	return c
}

func (t *table[T]) len() int { return len(t.keys) }

func (t *table[T]) get(key int64) *T {
	if i, ok := slices.BinarySearch(t.keys, key); ok {
		return t.vals[i]
	}
	return nil
}

// put sets a value. New keys are greater than all that are there: they are
// indexes of a log.
func (t *table[T]) put(key int64, v T) {
	b, err := json.Marshal(&v)
	if err != nil {
		// Strings, numbers and maps of them always encode.
		panic(fmt.Sprintf("ledger: encode %T: %v", v, err))
	}
	t.putEncoded(key, v, b)
}

// putEncoded is put for who has the value's JSON.
func (t *table[T]) putEncoded(key int64, v T, b []byte) {
	i, ok := slices.BinarySearch(t.keys, key)
	if !ok {
		if i != len(t.keys) {
			panic(fmt.Sprintf("ledger: %T of entry %d comes after that of entry %d", v, key, t.keys[len(t.keys)-1]))
		}
		t.keys, t.vals = append(t.keys, key), append(t.vals, nil)
	}
	t.vals[i] = &v
	t.set(i, sha256.Sum256(append(binary.BigEndian.AppendUint64([]byte{0}, uint64(key)), b...)))
}

// set puts a leaf in place and computes what is above it.
func (t *table[T]) set(i int, s sum) {
	for level := 0; ; level++ {
		if level == len(t.tree) {
			t.tree = append(t.tree, nil)
		}
		if i == len(t.tree[level]) {
			t.tree[level] = append(t.tree[level], s)
		} else {
			t.tree[level][i] = s
		}
		n := len(t.tree[level])
		if n == 1 {
			return
		}
		left := i &^ 1
		s = t.tree[level][left]
		if left+1 < n {
			right := t.tree[level][left+1]
			s = sha256.Sum256(append(append([]byte{1}, s[:]...), right[:]...))
		}
		i /= 2
	}
}

// sum is the digest of all values and their keys, in order.
func (t *table[T]) sum() sum {
	if len(t.tree) == 0 {
		return sum{}
	}
	return t.tree[len(t.tree)-1][0]
}
