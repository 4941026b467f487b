// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger/tiles"
)

// Submitter orders entries. Its Submit returns when the entry can never be
// lost again, or with a *Refused.
type Submitter interface {
	Submit(ctx context.Context, entry []byte) (Receipt, error)
	Health() error
}

// Orderer is a Submitter that makes the blocks itself, as a mirror does not.
type Orderer interface {
	// NewestBlock is the height of the newest block that was decided, as far as
	// this server knows; 0 is none, or a server that makes no blocks.
	NewestBlock() int64
}

// Busy says that an entry could not be taken now, through no fault of the
// entry, and after which time it is worth to try again.
type Busy struct {
	Reason string
	After  time.Duration
	Quota  bool // a signer has used up its Quota; others are served
}

func (b *Busy) Error() string { return b.Reason }

// Handler serves a log's static files and takes entries.
//
//	GET  /checkpoint, /tile/…, /root/…, /snapshot, …   what Dir.Read allows, nothing else; 410 for a bundle that was pruned
//	POST /submit                         200 with a Receipt, which is a proof, 400 or 409 with {"error","field"},
//	                                     429 or 503 with {"error"} and Retry-After
//	GET  /healthz                        200 or 503, with {"block"} where the server makes blocks (Orderer)
func Handler(dir tiles.Dir, s Submitter, log *slog.Logger) http.Handler {
	h := &handler{dir: dir, s: s, log: log}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /", h.file)
	mux.HandleFunc("POST /submit", h.submit)
	mux.HandleFunc("GET /healthz", h.health)
	return mux
}

// NewServer is an HTTP server with limits that fit a ledger.
func NewServer(h http.Handler) *http.Server {
	return &http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, ReadTimeout: 30 * time.Second,
		WriteTimeout: 2 * time.Minute, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 16 << 10,
	}
}

type handler struct {
	dir tiles.Dir
	s   Submitter
	log *slog.Logger
	hot hot
}

func (h *handler) file(w http.ResponseWriter, r *http.Request) {
	path := strings.TrimPrefix(r.URL.Path, "/")
	if path == snapshotPath {
		h.snapshot(w, r)
		return
	}
	b, err := h.hot.read(h.dir, path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		var gone *Pruned
		if err := why(r.Context(), dirSource{h.dir}, bundleOf(path), err); errors.As(err, &gone) {
			h.answer(w, http.StatusGone, reply{Error: gone.Error()})
			return
		}
		h.answer(w, http.StatusNotFound, reply{Error: "is no file of this log: " + path})
		return
	case err != nil:
		h.unread(w, path, err)
		return
	}
	kind, cache := "application/octet-stream", "public, max-age=31536000, immutable"
	if path == checkpointPath {
		kind, cache = "text/plain; charset=utf-8", "no-cache"
	} else if path == consensusPath || path == prunedPath {
		cache = "no-cache"
	} else if strings.HasPrefix(path, "root/") {
		kind = "application/json"
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", cache)
	w.Header().Set("Content-Length", strconv.Itoa(len(b))) // else what is longer than 2 KiB is sent in chunks
	if _, err := w.Write(b); err != nil {
		h.log.Debug("a reader went away", "part", "ledger", "path", path, "err", err)
	}
}

// A snapshot is sent in pieces, each of which has its own time: on a slow link the
// whole takes long. Nobody who reads one so slowly holds it in the server's memory.
const (
	piece     = 256 << 10
	pieceTime = time.Minute
)

func (h *handler) snapshot(w http.ResponseWriter, r *http.Request) {
	f, err := h.dir.Open(snapshotPath)
	var info fs.FileInfo
	if err == nil {
		defer func() {
			if err := f.Close(); err != nil {
				h.log.Error("close a snapshot", "part", "ledger", "err", err)
			}
		}()
		info, err = f.Stat()
	}
	switch {
	case errors.Is(err, fs.ErrNotExist):
		h.answer(w, http.StatusNotFound, reply{Error: "this log has no snapshot yet"})
		return
	case err != nil:
		h.unread(w, snapshotPath, err)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", strconv.FormatInt(info.Size(), 10))
	if r.Method == http.MethodHead {
		return
	}
	control := http.NewResponseController(w)
	for left := info.Size(); left > 0 && err == nil; left -= piece {
		if err = control.SetWriteDeadline(time.Now().Add(pieceTime)); errors.Is(err, http.ErrNotSupported) {
			err = nil // it has no deadline at all
		}
		if err == nil {
			_, err = io.CopyN(w, f, min(left, piece))
		}
	}
	if err != nil {
		h.log.Debug("a reader went away", "part", "ledger", "path", snapshotPath, "err", err)
	}
}

// unread answers that a file is there and could not be read.
func (h *handler) unread(w http.ResponseWriter, path string, err error) {
	h.log.Error("read a file of the log", "part", "ledger", "path", path, "err", err)
	h.answer(w, http.StatusInternalServerError, reply{Error: "the file could not be read"})
}

func (h *handler) submit(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, MaxEntry))
	var large *http.MaxBytesError
	if errors.As(err, &large) {
		h.answer(w, http.StatusRequestEntityTooLarge, reply{Error: "the entry has more than 65535 bytes"})
		return
	} else if err != nil {
		h.answer(w, http.StatusBadRequest, reply{Error: "the entry was cut off: " + err.Error()})
		return
	}
	receipt, err := h.order(r.Context(), body)
	var refused *Refused
	var busy *Busy
	switch {
	case errors.As(err, &busy):
		status := http.StatusServiceUnavailable
		if busy.Quota {
			status = http.StatusTooManyRequests
		}
		w.Header().Set("Retry-After", strconv.Itoa(int(math.Ceil(busy.After.Seconds()))))
		h.answer(w, status, reply{Error: busy.Reason})
	case errors.As(err, &refused):
		status := http.StatusConflict
		if _, err := Decode(body); err != nil {
			status = http.StatusBadRequest
		}
		h.answer(w, status, reply{Error: refused.Reason, Field: refused.Field})
	case err != nil:
		h.answer(w, http.StatusServiceUnavailable, reply{Error: err.Error()})
	default:
		h.answer(w, http.StatusOK, reply{Index: &receipt.Index, Size: receipt.Size, TimeMs: receipt.TimeMs, Proof: receipt.Proof, Entry: receipt.Entry})
	}
}

// order has an entry ordered, and proves its place.
func (h *handler) order(ctx context.Context, body []byte) (Receipt, error) {
	r, err := h.s.Submit(ctx, body)
	if err != nil {
		return r, err
	}
	return prove(ctx, h.dir, r, body)
}

// healthReply is the answer to /healthz.
type healthReply struct {
	OK    bool   `json:"ok"`
	Error string `json:"error,omitempty"`
	Block int64  `json:"block,omitempty"` // the newest that was decided
}

func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	r, status := healthReply{OK: true}, http.StatusOK
	if o, ok := h.s.(Orderer); ok {
		r.Block = o.NewestBlock()
	}
	if err := h.s.Health(); err != nil {
		r.OK, r.Error, status = false, err.Error(), http.StatusServiceUnavailable
	}
	h.answer(w, status, r)
}

func (h *handler) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		h.log.Error("encode an answer", "part", "ledger", "err", err)
		status = http.StatusInternalServerError
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	if _, err := w.Write(append(b, '\n')); err != nil {
		h.log.Debug("a client went away", "part", "ledger", "err", err)
	}
}
