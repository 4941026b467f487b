// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
	"slices"
	"sort"
	"strings"
	"sync"
	"time"
)

// Errors of a Fetcher, beside ErrMismatch.
var (
	// ErrMissing means that every mirror answered, and none has the content.
	ErrMissing = errors.New("content is on no mirror")
	// ErrUnreachable means that the context ended, or there was no mirror at
	// all, while mirrors did not answer as they should.
	ErrUnreachable = errors.New("mirrors do not answer")
	// ErrNoRoom means that this machine has no place for what a mirror sends.
	ErrNoRoom = errors.New("no room")
)

const (
	parallel       = 4 // downloads at once
	requestTimeout = 60 * time.Second
	firstBackoff   = 250 * time.Millisecond
	lastBackoff    = 5 * time.Second
)

// session is one operation of a Fetcher. It remembers how each mirror
// behaved: those that lied or had gaps are asked last.
type session struct {
	f     *Fetcher
	codec *codec
	http  *http.Client
	log   *slog.Logger

	mu    sync.Mutex
	demer map[string]int // mirror -> demerits
	pace  pace
	bytes int64 // received
}

func (f *Fetcher) session() (*session, error) {
	if len(f.Mirrors) == 0 {
		return nil, fmt.Errorf("%w: no mirror is configured", ErrUnreachable)
	}
	for _, m := range f.Mirrors {
		u, err := url.Parse(m)
		if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
			return nil, fmt.Errorf("mirror %q: want http://HOST[:PORT][/PATH] or https://…", m)
		}
	}
	codec, err := newCodec()
	if err != nil {
		return nil, err
	}
	s := &session{f: f, codec: codec, http: f.HTTP, log: f.Log, demer: map[string]int{}}
	if s.http == nil {
		s.http = http.DefaultClient
	}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	return s, nil
}

// order gives the mirrors, best first.
func (s *session) order() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := append([]string(nil), s.f.Mirrors...)
	sort.SliceStable(out, func(i, j int) bool { return s.demer[out[i]] < s.demer[out[j]] })
	return out
}

func (s *session) received() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// verdict is what became of one request to one mirror.
type verdict int

const (
	good    verdict = iota
	silent          // no answer, or one that broke off: worth asking again
	lacking         // it says that it does not have it, or has more than fits here
	lying           // what it sent is wrong
)

// judge sorts an error into a verdict and books it.
func (s *session) judge(mirror, what string, err error) verdict {
	v := silent
	switch {
	case err == nil:
		return good
	case errors.Is(err, ErrMismatch) || errors.Is(err, ErrManifest):
		v = lying
	case errors.Is(err, ErrMissing), errors.Is(err, ErrNoRoom):
		v = lacking
	}
	s.mu.Lock()
	s.demer[mirror] += int(v)
	s.mu.Unlock()
	s.log.Warn("mirror failed", "part", "zimage", "mirror", mirror, "what", what, "err", err)
	if v != silent && s.f.Report != nil && !errors.Is(err, ErrNoRoom) { // which may be ours
		s.f.Report(mirror, what, err)
	}
	return v
}

// localError is a failure of this machine: no mirror is to blame, and asking
// again does not help.
type localError struct{ error }

func (e localError) Unwrap() error { return e.error }

// each asks one mirror after the other until get succeeds. A mirror whose
// answer is wrong or "not here" is not asked again for this content. When all
// others only failed to answer, it waits and asks those again, until ctx ends.
func (s *session) each(ctx context.Context, what string, get func(ctx context.Context, mirror string) error) error {
	_, err := s.race(ctx, what, 0, func(ctx context.Context, mirror string) ([]byte, error) { return nil, get(ctx, mirror) })
	return err
}

// race does what each says; late is when it asks a second mirror beside a
// silent one, and 0 is never.
func (s *session) race(ctx context.Context, what string, late time.Duration, get asking) ([]byte, error) {
	final := map[string]bool{} // mirrors that have had their say
	worst, why := good, error(nil)
	start := time.Now()
	judge := func(a answer) error {
		if local := (localError{}); errors.As(a.err, &local) {
			return fmt.Errorf("%s: %w", what, a.err)
		}
		if ctx.Err() != nil {
			return ended(ctx, what, why)
		}
		v := s.judge(a.mirror, what, a.err)
		final[a.mirror] = v != silent
		if v >= worst {
			worst, why = v, fmt.Errorf("%s: %w", a.mirror, a.err)
		}
		return nil
	}
	for wait := firstBackoff; ; wait = min(2*wait, lastBackoff) {
		left := slices.DeleteFunc(s.order(), func(m string) bool { return final[m] })
		if len(left) == 0 {
			return nil, fmt.Errorf("%s: no mirror has it right: %w", what, why)
		}
		if body, done, err := s.round(ctx, what, left, late, get, judge); done {
			return body, err
		}
		if slices.ContainsFunc(left, func(m string) bool { return !final[m] }) {
			s.log.Info("waiting for a mirror", "part", "zimage", "for", what, "elapsed", time.Since(start).Round(time.Millisecond))
			select {
			case <-ctx.Done():
				return nil, ended(ctx, what, why)
			case <-time.After(wait/2 + rand.N(wait/2)): // spread, so that nodes do not ask in step
			}
		}
	}
}

// ended is what remains to say when the context ends first.
func ended(ctx context.Context, what string, why error) error {
	if why == nil {
		return fmt.Errorf("%s: %w: %w", what, ErrUnreachable, context.Cause(ctx))
	}
	return fmt.Errorf("%s: %w: %w; last: %w", what, ErrUnreachable, context.Cause(ctx), why)
}

// request starts a GET of everything from a byte on. The body must be closed.
func (s *session) request(ctx context.Context, mirror, name string, from int64) (*http.Response, error) {
	if from > 0 {
		return s.ask(ctx, mirror, name, fmt.Sprintf("bytes=%d-", from), asItIs)
	}
	return s.ask(ctx, mirror, name, "", asItIs)
}

// asItIs is the only content coding that is accepted of what is packed already.
// A transparent gzip would hide how many bytes really come.
const asItIs = "identity"

// ask starts a GET of a range of bytes, "" being all, in a content coding that is
// accepted. The body must be closed.
func (s *session) ask(ctx context.Context, mirror, name, span, coding string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, strings.TrimSuffix(mirror, "/")+"/"+name, nil)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	req.Header.Set("Accept-Encoding", coding)
	if span != "" {
		req.Header.Set("Range", span)
	}
	resp, err := s.http.Do(req)
	if err != nil {
		return nil, fmt.Errorf("request: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusOK, resp.StatusCode == http.StatusPartialContent && span != "":
		return resp, nil
	case resp.StatusCode == http.StatusNotFound, resp.StatusCode == http.StatusGone:
		err = fmt.Errorf("%w: it answers %s", ErrMissing, resp.Status)
	default:
		err = &statusError{resp.StatusCode, resp.Status}
	}
	return nil, errors.Join(err, resp.Body.Close())
}

type statusError struct {
	code int
	text string
}

func (e *statusError) Error() string { return "it answers " + e.text }

// small gets a whole answer of at most limit bytes.
func (s *session) small(ctx context.Context, mirror, name string, limit int64) (b []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	resp, err := s.request(ctx, mirror, name, 0)
	if err != nil {
		return nil, err
	}
	return s.body(resp, limit)
}

// body reads a whole answer of at most limit bytes, and closes it.
func (s *session) body(resp *http.Response, limit int64) (b []byte, err error) {
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.ContentLength > limit {
		return nil, fmt.Errorf("%w: announces %d bytes, at most %d can be right", ErrMismatch, resp.ContentLength, limit)
	}
	b, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	s.mu.Lock()
	s.bytes += int64(len(b))
	s.mu.Unlock()
	if err != nil {
		return nil, fmt.Errorf("answer broke off after %d bytes: %w", len(b), err)
	}
	if int64(len(b)) > limit {
		return nil, fmt.Errorf("%w: sends more than %d bytes", ErrMismatch, limit)
	}
	return b, nil
}
