// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/zos-node/zos/spec"
	"golang.org/x/mod/sumdb/tlog"
)

// readSaid reads what was said: as many as the log has entries, so the chain of
// their digests is computed beside the table of them.
func readSaid(r *snapReader, s *State) {
	n := r.list(40)
	all := make(map[sum]int64, n)
	last := int64(-1)
	for range n {
		b := r.fixed(tlog.HashSize + 8)
		h := heard{sum(b[:tlog.HashSize]), int64(binary.BigEndian.Uint64(b[tlog.HashSize:]))}
		if h.index <= last || h.index >= r.size {
			r.fail(errors.New("entries are not in order"))
			return
		}
		last = h.index
		s.said.add(h)
	}
	var beside sync.WaitGroup
	beside.Go(func() {
		for i := range s.said.len() {
			s.saidSum = s.said.at(i).chain(s.saidSum)
		}
	})
	for i := range s.said.len() {
		h := s.said.at(i)
		all[h.id] = h.index
	}
	beside.Wait()
	if len(all) != s.said.len() {
		r.fail(errors.New("an entry is there twice"))
	}
	s.seen = positionsOf(all)
}

func openDeployment(d *Deployment, envelope []byte) error {
	e, err := Decode(envelope)
	if err != nil {
		return err
	}
	p, ok := e.Payload.(*spec.Deployment)
	if !ok || HashEntry(envelope) != d.Entry || spec.Digest(e.Envelope.Payload) != d.Digest || p.Metadata.Name != d.Name {
		return errors.New("is not the one that the entry registers")
	}
	d.Spec, d.Envelope = p, envelope
	return nil
}

// snapReader takes a snapshot apart while it comes. After an error it gives nothing
// more.
type snapReader struct {
	r    *bufio.Reader
	left int64 // bytes that may still come
	over error // what it is if there are more
	size int64 // entries of the log, none of which makes two members of one list
	err  error
}

func newSnapReader(r io.Reader, most int64, over error) *snapReader {
	return &snapReader{r: bufio.NewReaderSize(r, 64<<10), left: most, over: over}
}

func (r *snapReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

// failRead is fail for what a reader says.
func (r *snapReader) failRead(err error) {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		err = errors.New("ends too early")
	}
	r.fail(err)
}

// spend is called before so many bytes are read.
func (r *snapReader) spend(n int64) bool {
	if r.err == nil && n > r.left {
		r.fail(r.over)
	}
	if r.err != nil {
		return false
	}
	r.left -= n
	return true
}

// fixed reads a few bytes, which are there until the next are read.
func (r *snapReader) fixed(n int) []byte {
	if r.spend(int64(n)) {
		b, err := r.r.Peek(n)
		if err == nil {
			_, err = r.r.Discard(n)
		}
		if err == nil {
			return b
		}
		r.failRead(err)
	}
	return make([]byte, n)
}

// take reads any number of bytes. It does not believe that so many will come.
func (r *snapReader) take(n int64) []byte {
	if !r.spend(n) {
		return nil
	}
	const atOnce = 64 << 10
	b := make([]byte, 0, min(n, atOnce))
	for int64(len(b)) < n {
		if len(b) == cap(b) {
			b = append(make([]byte, 0, min(n, 2*int64(cap(b)))), b...)
		}
		more := b[len(b):cap(b)]
		if _, err := io.ReadFull(r.r, more); err != nil {
			r.failRead(err)
			return nil
		}
		b = b[:len(b)+len(more)]
	}
	return b
}

func (r *snapReader) num() int64 {
	n := int64(binary.BigEndian.Uint64(r.fixed(8)))
	if n < 0 {
		r.fail(errors.New("has a number that is too large"))
		return 0
	}
	return n
}

// list reads the length of a list: each member is of another entry, and takes at
// least so many bytes.
func (r *snapReader) list(each int64) int {
	n := r.num()
	if r.err == nil && n > r.size {
		r.fail(errors.New("has a list that is longer than the log"))
	}
	if r.err == nil && n > r.left/each {
		r.fail(r.over)
	}
	if r.err != nil {
		return 0
	}
	return int(n)
}

func (r *snapReader) bytes() []byte { return r.take(r.num()) }

// more says whether something comes yet.
func (r *snapReader) more() bool {
	if r.err != nil {
		return false
	}
	_, err := r.r.Peek(1)
	if err != nil && err != io.EOF {
		r.fail(err)
	}
	return err == nil
}

// row is a value of a table as a snapshot has it.
type row[T any] struct {
	key             int64
	value, envelope []byte
	v               T
	err             error
}

// open reads the value, which is in its one spelling.
func (w *row[T]) open(more func(*T, []byte) error) error {
	if err := json.Unmarshal(w.value, &w.v); err != nil {
		return err
	}
	if same, err := json.Marshal(&w.v); err != nil || !bytes.Equal(same, w.value) {
		return fmt.Errorf("%T of entry %d is not in its one spelling", w.v, w.key)
	}
	if more != nil {
		if err := more(&w.v, w.envelope); err != nil {
			return fmt.Errorf("%T of entry %d: %w", w.v, w.key, err)
		}
	}
	return nil
}

// What is read before it is looked at: so many rows, and not many more bytes.
const (
	rowsAtOnce  = 1024
	bytesAtOnce = 4 << 20
)

// readTable reads values that are in their order, some at once on all processors.
func readTable[T any](r *snapReader, t *table[T], more func(*T, []byte) error) {
	last := int64(-1)
	for left := r.list(16); left > 0 && r.err == nil; {
		var some []row[T]
		for n := 0; left > 0 && len(some) < rowsAtOnce && n < bytesAtOnce && r.err == nil; left-- {
			w := row[T]{key: r.num(), value: r.bytes()}
			if more != nil {
				w.envelope = r.bytes()
			}
			n += len(w.value) + len(w.envelope)
			some = append(some, w)
		}
		if r.err != nil {
			return
		}
		sideBySide(len(some), func(i int) { some[i].err = some[i].open(more) })
		for i := range some {
			w := &some[i]
			if w.err == nil && (w.key <= last || w.key >= r.size) {
				w.err = fmt.Errorf("%T of entry %d is not in order", w.v, w.key)
			}
			if w.err != nil {
				r.fail(w.err)
				return
			}
			last = w.key
			t.putEncoded(w.key, w.v, w.value)
		}
	}
}
