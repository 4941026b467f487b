// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
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
		h := heard{id: sum(r.take(tlog.HashSize)), index: r.num()}
		if h.index <= last {
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

// snapReader takes a snapshot apart. After an error it gives nothing more.
type snapReader struct {
	b   []byte
	err error
}

func (r *snapReader) fail(err error) {
	if r.err == nil {
		r.err = err
	}
}

func (r *snapReader) take(n int) []byte {
	if r.err != nil || n > len(r.b) {
		r.fail(errors.New("ends too early"))
		return make([]byte, min(n, tlog.HashSize))
	}
	b := r.b[:n:n]
	r.b = r.b[n:]
	return b
}

func (r *snapReader) num() int64 {
	n := int64(binary.BigEndian.Uint64(r.take(8)))
	if n < 0 {
		r.fail(errors.New("has a number that is too large"))
		return 0
	}
	return n
}

// list reads a length of members that take at least so many bytes each.
func (r *snapReader) list(each int) int {
	n := r.num()
	if r.err != nil || n > int64(len(r.b)/each) {
		r.fail(errors.New("ends too early"))
		return 0
	}
	return int(n)
}

func (r *snapReader) bytes() []byte {
	n := r.num()
	if r.err != nil || n > int64(len(r.b)) {
		r.fail(errors.New("ends too early"))
		return nil
	}
	return r.take(int(n))
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

// rowsAtOnce bounds what is read before it is looked at.
const rowsAtOnce = 1024

// readTable reads values that are in their order, some at once on all processors.
func readTable[T any](r *snapReader, t *table[T], more func(*T, []byte) error) {
	last := int64(-1)
	for left := r.list(16); left > 0 && r.err == nil; {
		some := make([]row[T], min(left, rowsAtOnce))
		left -= len(some)
		for i := range some {
			some[i].key, some[i].value = r.num(), r.bytes()
			if more != nil {
				some[i].envelope = r.bytes()
			}
		}
		if r.err != nil {
			return
		}
		sideBySide(len(some), func(i int) { some[i].err = some[i].open(more) })
		for i := range some {
			w := &some[i]
			if w.err == nil && w.key <= last {
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
