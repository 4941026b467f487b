// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// TestPackAhead walks what may become of a pack that was asked for beside the
// manifest: it counts as that mirror's answer, which is asked once, and whatever was
// sent, only blocks of the image come.
func TestPackAhead(t *testing.T) {
	s, m, id, wire, made := packed(t)
	disk := assemble(t, s, m)
	h := strings.TrimPrefix(id, "sha256:")
	at := "/" + pack.Name(h)
	flipped := bytes.Clone(wire)
	flipped[len(flipped)/2] ^= 1
	good := answering(at, wire)
	of := func(path string, then twist) twist {
		return func(n int, w http.ResponseWriter, r *http.Request) bool { return r.URL.Path == path && then(n, w, r) }
	}
	breaks := of(at, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		w.Write(wire[:len(wire)/2]) // whoever reads it sees that it breaks off
		panic(http.ErrAbortHandler)
	})
	silent := of(at, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	stalls := of(at, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.Header().Set("Content-Length", "100000")
		w.Write(wire[:len(wire)/2]) // as above
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		panic(http.ErrAbortHandler)
	})
	noLength := of(at, func(_ int, w http.ResponseWriter, r *http.Request) bool {
		w.(http.Flusher).Flush()
		w.Write(wire) // whoever reads it may stop
		return true
	})
	const asked, never = 1, 0
	for _, c := range []struct {
		name           string
		first, second  twist
		toFirst        int // requests for the pack
		toSecond       int
		want, reported error // of the first mirror
		short          bool  // patience with the first
	}{
		{"all is well", good, silent, asked, never, nil, nil, false},
		{"the first has none", nil, good, asked, asked, nil, nil, false},
		{"none has one", nil, nil, asked, asked, ErrMissing, nil, false},
		{"it lies", answering(at, flipped), good, asked, asked, nil, ErrMismatch, false},
		{"it is cut off for good", answering(at, wire[:len(wire)-1]), good, asked, asked, nil, ErrMismatch, false},
		{"its line breaks", breaks, good, asked, asked, nil, nil, false},
		{"it stops in the middle", stalls, good, asked, asked, nil, nil, true},
		{"it does not say how long it is, and is asked again", noLength, silent, 2 * asked, never, nil, nil, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			first, second := serveStore(t, s, c.first), serveStore(t, s, c.second)
			f, lies := fetcher(first.URL, second.URL)
			f.packLate, f.packStall = time.Minute, time.Minute
			if c.short {
				f.packStall = 100 * time.Millisecond
			}
			got, ahead, err := f.ManifestAhead(t.Context(), id)
			if err != nil || got.Verity.Root != m.Verity.Root || ahead.Mirror != first.URL {
				t.Fatalf("%+v, %v", got, err)
			}
			r, w := io.Pipe()
			sent := make(chan error, 1)
			go func() {
				sent <- ahead.Send(w)
				w.Close()
			}()
			f.packStall = time.Minute // of the second
			came := map[int64]bool{}
			err = f.StartPackAfter(t.Context(), m, id, Sent{ahead.Mirror, r}, pack.Reading{Index: func(extent.List) error { return nil }, Block: func(k int64, b []byte) error {
				if came[k] = true; !bytes.Equal(b, disk[k*4096:(k+1)*4096]) {
					t.Errorf("block %d is wrong", k)
				}
				return nil
			}})
			r.Close() // who sends may have more
			<-sent
			if !errors.Is(err, c.want) || err == nil && int64(len(came)) != made.Blocks {
				t.Errorf("%d of %d blocks came: %v", len(came), made.Blocks, err)
			}
			if got := errors.Join(lies.errs[first.URL]...); !errors.Is(got, c.reported) || len(lies.errs[first.URL]) > 1 || len(lies.errs[second.URL]) > 0 {
				t.Errorf("reported: %v, of the second %v", got, lies.errs[second.URL])
			}
			if a, b := first.count("/starts/"), second.count("/starts/"); a != c.toFirst || b != c.toSecond {
				t.Errorf("the first was asked %d times, the second %d times", a, b)
			}
		})
	}
}

// TestPackIsNotWaitedFor: the manifest and the pack are asked for at the same time;
// a mirror that does not begin to send a pack is given up, and one that nobody takes
// is closed.
func TestPackIsNotWaitedFor(t *testing.T) {
	s, _, id, _, _ := packed(t)
	at := "/" + pack.Name(strings.TrimPrefix(id, "sha256:"))
	both, gone := make(chan struct{}), make(chan struct{}, 2)
	mirror := serveStore(t, s, func(_ int, _ http.ResponseWriter, r *http.Request) bool {
		if r.URL.Path != at {
			select { // the manifest comes when the pack has been asked for
			case <-both:
			case <-r.Context().Done():
			}
			return false
		}
		both <- struct{}{}
		<-r.Context().Done()
		gone <- struct{}{}
		panic(http.ErrAbortHandler)
	})
	f, lies := fetcher(mirror.URL)
	f.packLate = time.Millisecond
	_, ahead, err := f.ManifestAhead(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	var said bytes.Buffer
	if err := ahead.Send(&said); err == nil || said.Len() != 0 {
		t.Errorf("sent %d bytes: %v", said.Len(), err)
	}
	<-gone
	if _, ahead, err = f.ManifestAhead(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	ahead.Close()
	ahead.Close() // says no more
	<-gone
	if len(lies.errs) != 0 {
		t.Errorf("reported: %v", lies.errs)
	}
}
