// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// packed is an image with a pack of its first and some later blocks.
func packed(t *testing.T) (s *Store, m Manifest, id string, wire []byte, made pack.Made) {
	t.Helper()
	s, m, id = converted(t, sample(t))
	o, made, err := s.StartPackObject(t.Context(), id, extent.List{{First: 0, Blocks: 3}, {First: m.DataSize/4096 - 2, Blocks: 2}, {First: 5, Blocks: 1}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	wire, err = io.ReadAll(o.Body)
	if err != nil || o.Name != "starts/"+strings.TrimPrefix(id, "sha256:")+".br" || o.Kind != "application/octet-stream" || int64(len(wire)) != o.Size {
		t.Fatalf("%+v, %v", o, err)
	}
	return s, m, id, wire, made
}

// TestStartPack walks the ways in which mirrors fail to bring a pack. Whatever
// they do, only blocks of the image come, and who lied is known.
func TestStartPack(t *testing.T) {
	s, m, id, wire, made := packed(t)
	disk := assemble(t, s, m)
	at := "/" + pack.Name(strings.TrimPrefix(id, "sha256:"))
	flipped := bytes.Clone(wire)
	flipped[len(flipped)/2] ^= 1
	other, _, _ := func() (Object, pack.Made, error) {
		s, _, id := converted(t, ociImage(t, []item{file("another", noise(50000, 9))}))
		return s.StartPackObject(t.Context(), id, extent.List{{First: 0, Blocks: 3}}, nil)
	}()
	foreign, err := io.ReadAll(other.Body)
	if err != nil {
		t.Fatal(err)
	}
	status := func(code int) twist {
		return func(_ int, w http.ResponseWriter, r *http.Request) bool {
			w.WriteHeader(code)
			return true
		}
	}
	breaks := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		w.Write(wire[:len(wire)/2]) // whoever reads it sees that it breaks off
		panic(http.ErrAbortHandler)
	}
	silent := func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	}
	announces := func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "1000000000000")
		w.Write(wire) // whoever reads it does not
		return true
	}
	good := answering(at, wire)
	for _, c := range []struct {
		name          string
		first, second twist
		want          error // nil: it comes
		reported      error // of the first mirror
		stall         time.Duration
	}{
		{"all is well", good, silent, nil, nil, 0},
		{"no mirror has one", nil, nil, ErrMissing, nil, 0},
		{"the second has it", nil, good, nil, nil, 0},
		{"the first may not say", status(403), good, nil, nil, 0},
		{"the first is broken", status(500), good, nil, nil, 0},
		{"a bit is wrong", answering(at, flipped), good, nil, ErrMismatch, 0},
		{"of another image", answering(at, foreign), good, nil, ErrMismatch, 0},
		{"cut off for good", answering(at, wire[:len(wire)-1]), good, nil, ErrMismatch, 0},
		{"more behind it", answering(at, append(bytes.Clone(wire), 1)), good, nil, ErrMismatch, 0},
		{"no pack", answering(at, []byte("here is your pack")), good, nil, ErrMismatch, 0},
		{"announces too much", announces, good, nil, ErrMismatch, 0},
		{"the line breaks", breaks, good, nil, nil, 0},
		{"the first sends nothing", silent, good, nil, nil, 500 * time.Millisecond},
		{"both lie", answering(at, flipped), answering(at, foreign), ErrMismatch, ErrMismatch, 0},
		{"a lie, and none", answering(at, flipped), nil, ErrMismatch, ErrMismatch, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := serveStore(t, s, c.first), serveStore(t, s, c.second)
			f, lies := fetcher(first.URL, second.URL)
			f.packLate = time.Minute
			if f.packStall = time.Minute; c.stall != 0 {
				f.packStall = c.stall
			}
			came := map[int64]bool{}
			err := f.StartPack(t.Context(), m, id, pack.Reading{Index: func(extent.List) error { return nil }, Block: func(k int64, b []byte) error {
				if came[k] = true; !bytes.Equal(b, disk[k*4096:(k+1)*4096]) {
					t.Errorf("block %d is wrong", k)
				}
				return nil
			}})
			// A second mirror that is as slow as this machine may be given up as well.
			if !errors.Is(err, c.want) && !(c.stall != 0 && errors.Is(err, context.Canceled)) || err == nil && int64(len(came)) != made.Blocks {
				t.Errorf("%d of %d blocks came: %v", len(came), made.Blocks, err)
			}
			if got := errors.Join(lies.errs[first.URL]...); !errors.Is(got, c.reported) || len(lies.errs[first.URL]) > 1 {
				t.Errorf("of the first mirror was reported: %v", got)
			}
			if got := lies.errs[second.URL]; len(got) > 0 && c.name != "both lie" {
				t.Errorf("of the second mirror was reported: %v", got)
			}
		})
	}
}

// TestSlowPack: while a mirror does not begin to answer, the next is asked too, and
// the first that begins counts. One that was only slow may still answer when that
// one fails, and is not called a liar.
func TestSlowPack(t *testing.T) {
	s, m, id, wire, made := packed(t)
	at := "/" + pack.Name(strings.TrimPrefix(id, "sha256:"))
	flipped := bytes.Clone(wire)
	flipped[len(flipped)/2] ^= 1
	good := answering(at, wire)
	// after answers as then does when a channel is closed, or nothing.
	after := func(asked <-chan struct{}, then twist) twist {
		return func(n int, w http.ResponseWriter, r *http.Request) bool {
			select {
			case <-asked:
				return then(n, w, r)
			case <-r.Context().Done():
				panic(http.ErrAbortHandler)
			}
		}
	}
	for _, c := range []struct {
		name          string
		second        twist
		never         bool // does the first answer
		first, report int  // requests to the first, reports of the second
	}{
		{"the second is quicker", good, true, 1, 0},
		{"the second has none", nil, false, 1, 0},
		{"the second lies", answering(at, flipped), false, 2, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			begun, asked, lied := make(chan struct{}), make(chan struct{}), make(chan struct{})
			second := serveStore(t, s, after(begun, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					close(asked)
				}
				return c.second != nil && c.second(n, w, r)
			}))
			when := asked // the first answers
			if c.never || c.report > 0 {
				when = lied
			}
			answers := after(when, good)
			first := serveStore(t, s, func(n int, w http.ResponseWriter, r *http.Request) bool {
				if n == 1 {
					close(begun) // it was asked, before the second says anything
				}
				return answers(n, w, r)
			})
			f, lies := fetcher(first.URL, second.URL)
			f.packStall, f.packLate = time.Minute, time.Millisecond
			report := f.Report
			f.Report = func(mirror, what string, err error) {
				report(mirror, what, err)
				close(lied)
			}
			came := map[int64]bool{}
			err := f.StartPack(t.Context(), m, id, pack.Reading{Index: func(extent.List) error { return nil }, Block: func(k int64, _ []byte) error {
				came[k] = true
				return nil
			}})
			if err != nil || int64(len(came)) != made.Blocks {
				t.Errorf("%d of %d blocks came: %v", len(came), made.Blocks, err)
			}
			if n := first.count("/starts/"); n != c.first || second.count("/starts/") != 1 {
				t.Errorf("the first was asked %d times, want %d; the second %d times", n, c.first, second.count("/starts/"))
			}
			if len(lies.errs[first.URL]) != 0 || len(lies.errs[second.URL]) != c.report {
				t.Errorf("reported: %v", lies.errs)
			}
		})
	}
}

// TestStartPackIsEnded: whoever wants a pack may stop that, and is not told that
// a mirror is at fault.
func TestStartPackIsEnded(t *testing.T) {
	s, m, id, wire, _ := packed(t)
	mirror := serveStore(t, s, answering("/"+pack.Name(strings.TrimPrefix(id, "sha256:")), wire))
	f, lies := fetcher(mirror.URL, mirror.URL)
	mine := errors.New("no need")
	take := func(extent.List) error { return nil }
	for _, to := range []pack.Reading{
		{Index: func(extent.List) error { return mine }},
		{Index: take, Block: func(int64, []byte) error { return mine }},
	} {
		if err := f.StartPack(t.Context(), m, id, to); !errors.Is(err, mine) {
			t.Errorf("got %v", err)
		}
	}
	if n := mirror.count("/starts/"); n != 2 || len(lies.errs) != 0 {
		t.Errorf("%d requests, reported %v", n, lies.errs)
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := f.StartPack(ctx, m, id, pack.Reading{Index: take}); !errors.Is(err, ErrUnreachable) {
		t.Errorf("got %v", err)
	}
}

// TestStartPackObject: no pack is made of chunks that are wrong, of another disk's
// blocks, or of an image that is not there.
func TestStartPackObject(t *testing.T) {
	s, m, id, _, _ := packed(t)
	if _, _, err := s.StartPackObject(t.Context(), id, extent.List{{First: m.DiskSize / 4096, Blocks: 1}}, nil); !errors.Is(err, extent.ErrList) {
		t.Errorf("behind the end: %v", err)
	}
	if _, _, err := s.StartPackObject(t.Context(), digestOf(nil), extent.List{{First: 0, Blocks: 1}}, nil); !isMissing(err) {
		t.Errorf("of no image: %v", err)
	}
	if err := s.write(chunkName(m.Chunks[0].ID), s.codec.pack([]byte("wrong"))); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.StartPackObject(t.Context(), id, extent.List{{First: 0, Blocks: 1}}, nil); !errors.Is(err, ErrMismatch) {
		t.Errorf("of a wrong chunk: %v", err)
	}
}
