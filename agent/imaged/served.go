// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/agent/imaged/serve"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/agent/vm/proc"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// Why a disk is served no more.
var (
	// ErrUnavailable means that the mirrors did not send a part in time.
	ErrUnavailable = errors.New("the image did not arrive in time")
	// ErrDied means that the server is gone.
	ErrDied = errors.New("the server of the image died")
)

// Served is a disk that a server shows.
type Served struct {
	path    string
	dir     string
	cfg     serve.Config
	process Process
	log     *slog.Logger
	report  func(mirror, what string, err error)

	whole chan struct{}
	ended chan struct{}

	mu       sync.Mutex
	err      error
	detached bool
	bytes    int64
	read     extent.List
	missing  int
}

// ID is the image's.
func (s *Served) ID() string { return s.cfg.ID }

// Path is where the disk is shown.
func (s *Served) Path() string { return s.path }

// Manifest is the image's.
func (s *Served) Manifest() zimage.Manifest { return s.cfg.Manifest }

// Ready waits until a guest may start from the disk, and holds the server
// against how it was to be confined.
func (s *Served) Ready(ctx context.Context) error {
	booted := make(chan error, 1)
	go func() { booted <- s.process.Booted(ctx) }()
	var err error
	select {
	case err = <-booted:
	case <-s.ended:
		err = errors.Join(s.Err(), ctx.Err())
	}
	if err != nil {
		return fmt.Errorf("image server: %w", err)
	}
	h, err := s.process.Hardening()
	if err != nil {
		return fmt.Errorf("image server: %w", err)
	}
	s.log.Info("image is served while it arrives", "bytes", s.Bytes(), "missing", s.missingChunks(), "hardening", h)
	return nil
}

// Whole is closed when everything is there. The file that zimage.PartNames
// says is then to be verified: the server is believed nothing.
func (s *Served) Whole() <-chan struct{} { return s.whole }

// Ended is closed when the disk is served no more, or reads of it wait in
// vain; Err then says why, and is nil when nobody read it any more.
func (s *Served) Ended() <-chan struct{} { return s.ended }

// Err is why it has ended.
func (s *Served) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// Bytes is what mirrors have sent.
func (s *Served) Bytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

func (s *Served) missingChunks() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.missing
}

// Read are the blocks that were read, in the order of their first reads.
func (s *Served) Read() extent.List {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.read)
}

// Died waits a moment for the end of the process, of which a broken disk may
// be heard earlier.
func (s *Served) Died(wait time.Duration) bool {
	t := time.NewTimer(wait)
	defer t.Stop()
	select {
	case <-s.process.Done():
		return true
	case <-t.C:
		return false
	}
}

// Detach takes the disk away from its path. VMs that have it open keep it,
// and the server ends with the last of them.
func (s *Served) Detach() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.detached {
		return nil
	}
	if err := s.unmount(); err != nil {
		return err
	}
	s.detached = true
	return nil
}

// Detached says whether Detach was called, by this agent or an earlier one.
func (s *Served) Detached() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.detached
}

// Kill ends the server at once, and with it all that runs from it, and leaves
// nothing of it. Reads that wait, even those of a VMM that is being killed,
// come back.
func (s *Served) Kill(ctx context.Context) error {
	if err := errors.Join(s.process.Kill(ctx), s.Detach()); err != nil {
		return err
	}
	return s.remove()
}

// remove removes the folder of a server that is gone.
func (s *Served) remove() error {
	if err := s.unmount(); err != nil {
		return err
	}
	if err := os.RemoveAll(s.dir); err != nil {
		return fmt.Errorf("image server: %w", err)
	}
	return nil
}

// Words of the events that the process's watcher keeps for an agent that
// adopts.
const (
	eventWhole  vm.EventKind = serve.Whole
	eventFailed vm.EventKind = serve.Failed
)

// parse reads a line of the server's.
func (s *Served) parse(object []byte, now time.Time) (proc.Parsed, error) {
	var e serve.Event
	if err := json.Unmarshal(object, &e); err != nil {
		return proc.Parsed{}, err
	}
	s.mu.Lock()
	s.bytes = max(s.bytes, e.Bytes)
	s.mu.Unlock()
	switch e.Event {
	case serve.Ready:
		s.mu.Lock()
		s.missing = e.Missing
		s.mu.Unlock()
		return proc.Parsed{Booted: true}, nil
	case serve.Whole, serve.Failed:
		return proc.Parsed{Event: vm.Event{Kind: vm.EventKind(e.Event), At: now, Detail: e.Detail}}, nil
	case serve.Progress:
		s.mu.Lock()
		s.missing = e.Missing
		s.read = append(s.read, e.Read...)
		s.mu.Unlock()
	case serve.Packed:
		s.log.Info("start pack of the image has come", "blocks", e.Blocks, "bytes", e.Bytes, "err", e.Detail)
	case serve.Mirror:
		if s.report != nil {
			kind := zimage.ErrMismatch
			if e.Lacks {
				kind = zimage.ErrMissing
			}
			s.report(e.Mirror, e.What, fmt.Errorf("%w: %s", kind, e.Detail))
		}
	}
	return proc.Parsed{}, nil
}

// cleanExit is how the end of a server reads that nobody needed any more.
const cleanExit = "exit status 0"

// watch books what the server says until it is gone.
func (s *Served) watch() {
	end := func(err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		select {
		case <-s.ended:
		default:
			s.err = err
			close(s.ended)
		}
	}
	for e := range s.process.Events() {
		switch e.Kind {
		case eventWhole:
			s.log.Info("image has arrived", "bytes", s.Bytes())
			close(s.whole)
		case eventFailed:
			end(fmt.Errorf("%w: %s", ErrUnavailable, e.Detail))
		case vm.EventExit:
			if e.Detail == cleanExit {
				end(nil)
				continue
			}
			err := fmt.Errorf("%w: %s: %s", ErrDied, e.Detail, strings.TrimSpace(s.process.LogTail()))
			s.log.Warn("image server ended", "err", err)
			end(err)
		}
	}
}
