// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"errors"
	"fmt"
	"os"
	"sync"
)

// Donors find the chunks of one image in the disks of others that lie whole on
// this machine: what a new version of an image shares with the last one is not
// sent again. A donor is believed nothing: what is read of it is hashed, and what
// is wrong, or gone by now, comes from a mirror. Its file is opened for each chunk
// anew, so that one that is evicted meanwhile gives its room free.
//
// It takes memory only for what is wanted. Its methods may be called by several
// goroutines; of nil it has nothing.
type Donors struct {
	find func(d *Donors)
	once sync.Once

	mu    sync.Mutex
	at    map[string]spot // what is wanted, by chunk id
	lack  int             // of it, what is nowhere yet
	files []string
	gone  map[string]bool // files that are there no more
	doubt []string        // files that are not what they should be, which nobody was told yet
	told  map[string]bool // all of those
	given int
	bytes int64
}

// spot is where a chunk is said to be.
type spot struct {
	size int64
	file int // place in files; nowhere is none
	off  int64
}

const nowhere = -1

// NewDonors looks for the chunks of an image. find, which calls Add, runs when
// the first chunk is asked for: not at all when nothing has to be fetched.
func NewDonors(m Manifest, find func(d *Donors)) *Donors {
	d := &Donors{find: find, at: make(map[string]spot, len(m.Chunks)), gone: map[string]bool{}, told: map[string]bool{}}
	for _, c := range m.Chunks {
		d.at[c.ID] = spot{size: c.Size, file: nowhere}
	}
	d.lack = len(d.at)
	return d
}

// Add has a donor: a file that is said to be the whole disk of a manifest. It
// gives how many chunks are still to be found.
func (d *Donors) Add(m Manifest, path string) (lacking int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.files = append(d.files, path)
	for _, c := range m.Chunks {
		if s, wanted := d.at[c.ID]; wanted && s.file == nowhere && s.size == c.Size {
			d.at[c.ID] = spot{s.size, len(d.files) - 1, c.Off}
			d.lack--
		}
	}
	return d.lack
}

// Doubt says of a file, as a wrong chunk does, that it is not what it should be.
func (d *Donors) Doubt(path string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.told[path] {
		d.told[path] = true
		d.doubt = append(d.doubt, path)
	}
}

// Doubtful gives, each once, the files that were found to be other than they
// should be. Whoever asks has them looked at as a whole.
func (d *Donors) Doubtful() []string {
	if d == nil {
		return nil
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	files := d.doubt
	d.doubt = nil
	return files
}

// Given is how many chunks came from donors, and their bytes.
func (d *Donors) Given() (chunks int, bytes int64) {
	if d == nil {
		return 0, 0
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.given, d.bytes
}

// Has says whether a donor is said to have a chunk.
func (d *Donors) Has(c Chunk) bool {
	_, _, ok := d.place(c)
	return ok
}

func (d *Donors) place(c Chunk) (path string, off int64, ok bool) {
	if d == nil {
		return "", 0, false
	}
	d.once.Do(func() { d.find(d) })
	d.mu.Lock()
	defer d.mu.Unlock()
	s, wanted := d.at[c.ID]
	if !wanted || s.file == nowhere || s.size != c.Size || d.gone[d.files[s.file]] {
		return "", 0, false
	}
	return d.files[s.file], s.off, true
}

// Chunk gives the bytes of a chunk, hashed, or nil: then it has to be fetched.
func (d *Donors) Chunk(c Chunk) []byte {
	path, off, ok := d.place(c)
	if !ok {
		return nil
	}
	b, err := readChunk(path, off, c)
	switch {
	case err == nil:
		d.mu.Lock()
		defer d.mu.Unlock()
		d.given++
		d.bytes += c.Size
		return b
	case isMissing(err): // evicted, or in quarantine
		d.mu.Lock()
		defer d.mu.Unlock()
		d.gone[path] = true
	default:
		d.Doubt(path)
	}
	return nil
}

// readChunk reads a chunk of a disk and holds it against its hash.
func readChunk(path string, off int64, c Chunk) (b []byte, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b = make([]byte, c.Size)
	if _, err := f.ReadAt(b, off); err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return b, checkChunk(b, c)
}
