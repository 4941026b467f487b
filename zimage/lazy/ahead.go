// SPDX-License-Identifier: Apache-2.0

package lazy

import "github.com/zos-node/zos/zimage"

// aheadOfReads is how many chunks of one file may be on their way, or here, that
// nobody has read yet: 2 MiB, which a line of 100 Mbit/s brings within two round
// trips of 30 ms.
const aheadOfReads = 8

// runs knows which chunks belong together: those of one file, which but for the
// last are of the largest size. A program reads its libraries page by page as it
// comes to them, and waits for each chunk; who reads a part of a file mostly
// reads the next one too.
type runs struct {
	end   []int       // by chunk: where its run ends
	ahead map[int]int // by that end: chunks that were fetched before they were read
	early map[int]bool
	queue []int // what is to be fetched, also what a start pack did not bring
}

func newRuns(chunks []zimage.Chunk) *runs {
	r := &runs{end: make([]int, len(chunks)), ahead: map[int]int{}, early: map[int]bool{}}
	for i := len(chunks) - 1; i >= 0; i-- {
		r.end[i] = i + 1
		if i+1 < len(chunks) && chunks[i].Size == zimage.MaxChunk {
			r.end[i] = r.end[i+1]
		}
	}
	return r
}

// read books the first read of a chunk, and wants what follows it, if that was
// not here and was not to come anyway.
func (r *runs) read(i int, missed bool, coming func(i int) bool) {
	end := r.end[i]
	if r.early[i] {
		delete(r.early, i)
		r.ahead[end]--
	} else if !missed {
		return
	}
	for k := i + 1; k < end && k <= i+aheadOfReads && r.ahead[end] < aheadOfReads; k++ {
		if !coming(k) && !r.early[k] {
			r.early[k] = true
			r.ahead[end]++
			r.queue = append(r.queue, k)
		}
	}
}

// next is a chunk to fetch; false is none.
func (r *runs) next() (int, bool) {
	if len(r.queue) == 0 {
		return 0, false
	}
	i := r.queue[0]
	r.queue = r.queue[1:]
	return i, true
}
