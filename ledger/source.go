// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// source is one place to read a log from. It is never trusted.
type source interface {
	// get reads a file of at most limit bytes. Errors wrap ErrUnreachable,
	// also fs.ErrNotExist where the file is not there, or ErrForged when it is
	// too large to be right.
	get(ctx context.Context, path string, limit int) ([]byte, error)
	// open reads a file that is too large for get, as it comes. Errors are those
	// of get; how much is too much is for who reads to say.
	open(ctx context.Context, path string) (io.ReadCloser, error)
	submit(ctx context.Context, entry []byte) (Receipt, error)
	String() string
}

func openSource(ref string, client *http.Client, l *limits) (source, error) {
	if !strings.Contains(ref, "://") {
		for _, dir := range []string{filepath.Join(ref, "log"), ref} {
			if _, err := os.Stat(filepath.Join(dir, checkpointPath)); err == nil {
				return dirSource{tiles.Dir(dir)}, nil
			}
		}
		return nil, fmt.Errorf("ledger %s: no checkpoint in that folder; want the folder of `zos ledger init` or a copy of its log/, or a URL", ref)
	}
	u, err := url.Parse(ref)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("ledger %q: want http(s)://host[:port][/path] or a folder", ref)
	}
	return &httpSource{strings.TrimSuffix(ref, "/"), client, l}, nil
}

// dirSource is a log on a local disk.
type dirSource struct{ dir tiles.Dir }

func (d dirSource) String() string { return string(d.dir) }

func (d dirSource) get(_ context.Context, path string, limit int) ([]byte, error) {
	b, err := d.dir.Read(path)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d, err)
	case len(b) > limit:
		return nil, fmt.Errorf("%w: %s/%s: has %d bytes, at most %d are allowed", ErrForged, d, path, len(b), limit)
	}
	return b, nil
}

func (d dirSource) open(_ context.Context, path string) (io.ReadCloser, error) {
	f, err := d.dir.Open(path)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrUnreachable, d, err)
	}
	return f, nil
}

func (d dirSource) submit(context.Context, []byte) (Receipt, error) {
	return Receipt{}, fmt.Errorf("%w: %s is a folder; submit needs the URL of a ledger server", ErrUnreachable, d)
}

// httpSource is a log on a web server.
type httpSource struct {
	base   string
	client *http.Client
	limits *limits
}

func (h *httpSource) String() string { return h.base }

func (h *httpSource) get(ctx context.Context, path string, limit int) (b []byte, err error) {
	body, err := h.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	return h.all(path, body, limit)
}

func (h *httpSource) open(ctx context.Context, path string) (io.ReadCloser, error) {
	status, _, body, err := h.do(ctx, http.MethodGet, path, nil)
	switch {
	case err != nil:
		return nil, err
	case status == http.StatusOK:
		return body, nil
	case status == http.StatusNotFound || status == http.StatusGone:
		err = fmt.Errorf("%w: %s/%s: %w", ErrUnreachable, h, path, fs.ErrNotExist)
	default:
		err = fmt.Errorf("%w: %s/%s: HTTP status %d", ErrUnreachable, h, path, status)
	}
	return nil, errors.Join(err, body.Close())
}

// all reads an answer to its end, which comes soon enough.
func (h *httpSource) all(path string, body io.Reader, limit int) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, err
	case len(b) > limit:
		return nil, fmt.Errorf("%w: %s/%s: has more than the %d bytes that are allowed", ErrForged, h, path, limit)
	}
	return b, nil
}

// do asks, and gives the answer as it comes, while it comes.
func (h *httpSource) do(ctx context.Context, method, path string, body []byte) (status int, header http.Header, answer io.ReadCloser, err error) {
	w := newWaiting(ctx, h.limits)
	req, err := http.NewRequestWithContext(w.ctx, method, h.base+"/"+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(err, w.Close()))
	}
	var resp *http.Response
	err = w.wait(func() (err error) {
		resp, err = h.client.Do(req)
		return err
	})
	if err != nil {
		return 0, nil, nil, fmt.Errorf("%w: %w", ErrUnreachable, errors.Join(err, w.Close()))
	}
	w.what, w.body = req.URL.String(), resp.Body
	return resp.StatusCode, resp.Header, w, nil
}

// reply is what the server answers to a submit.
type reply struct {
	Index  *int64 `json:"index,omitempty"`
	Size   int64  `json:"size,omitempty"`
	TimeMs int64  `json:"timeMs,omitempty"`
	Proof  string `json:"proof,omitempty"`
	Entry  string `json:"entry,omitempty"`
	Error  string `json:"error,omitempty"`
	Field  string `json:"field,omitempty"`
}

func (h *httpSource) submit(ctx context.Context, entry []byte) (_ Receipt, err error) {
	status, header, body, err := h.do(ctx, http.MethodPost, "submit", entry)
	if err != nil {
		return Receipt{}, err
	}
	defer func() { err = errors.Join(err, body.Close()) }()
	b, err := h.all("submit", body, 256<<10)
	if err != nil {
		return Receipt{}, err
	}
	var r reply
	if err := json.Unmarshal(b, &r); err != nil {
		return Receipt{}, fmt.Errorf("%w: %s/submit: HTTP status %d without a JSON answer", ErrUnreachable, h, status)
	}
	switch {
	case (status == http.StatusOK || status == http.StatusConflict) && r.Index != nil:
		return Receipt{Index: *r.Index, Size: r.Size, TimeMs: r.TimeMs, Proof: r.Proof, Entry: r.Entry}, nil
	case status == http.StatusBadRequest || status == http.StatusConflict || status == http.StatusRequestEntityTooLarge:
		return Receipt{}, &Refused{Field: r.Field, Reason: r.Error, Index: -1}
	case status == http.StatusTooManyRequests || status == http.StatusServiceUnavailable && r.Error != "":
		// It was reached, and says itself what it waits for.
		busy := &Busy{Reason: r.Error, Quota: status == http.StatusTooManyRequests}
		if s, err := strconv.ParseInt(header.Get("Retry-After"), 10, 32); err == nil && s > 0 {
			busy.After = time.Duration(s) * time.Second
		}
		return Receipt{}, fmt.Errorf("%w: %s takes no entry now: %w", ErrUnreachable, h, busy)
	}
	return Receipt{}, fmt.Errorf("%w: %s/submit: HTTP status %d: %s", ErrUnreachable, h, status, r.Error)
}

// wide reads a tile or bundle of width w; the full one serves as well, which
// is what a log keeps for ever.
func wide(ctx context.Context, s source, partial, full string, w, limit int) ([]byte, error) {
	b, err := s.get(ctx, partial, limit)
	if err == nil || w == tiles.Width || !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	if b, err = s.get(ctx, full, limit); err != nil {
		return nil, err
	}
	if b, err = tiles.Cut(partial, b, w); err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrForged, s, err)
	}
	return b, nil
}
