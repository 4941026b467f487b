// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/zos-node/zos/zimage"
)

// Mirrors turns what the fetcher reports of mirrors into incidents, of each
// mirror and kind one at a time (once).
type Mirrors struct {
	Log      *slog.Logger
	Now      func() time.Time
	Incident func(kind, detail string) error

	mu   sync.Mutex
	once once
}

// Kinds of incidents about mirrors.
const (
	mirrorMissing    = "mirror-missing"
	manifestMismatch = "manifest-mismatch"
	chunkMismatch    = "chunk-mismatch"
	blobMismatch     = "blob-mismatch"
	mirrorGone       = "mirror-unreachable"
)

func mirrorKind(what string, err error) string {
	switch {
	case errors.Is(err, zimage.ErrMissing):
		return mirrorMissing
	case errors.Is(err, zimage.ErrUnreachable):
		return mirrorGone
	case strings.Contains(what, "manifest"):
		return manifestMismatch
	case strings.Contains(what, "blob"):
		return blobMismatch
	}
	return chunkMismatch
}

// Report is for zimage.Fetcher.
func (m *Mirrors) Report(mirror, what string, err error) {
	k := mirrorKind(what, err)
	m.mu.Lock()
	defer m.mu.Unlock()
	added, ok := m.once.pass(mirror+" "+k, m.Now())
	if !ok {
		return
	}
	m.Log.Warn("mirror fault", "mirror", mirror, "what", what, "kind", k, "err", err)
	if ierr := m.Incident(k, mirror+": "+what+": "+err.Error()+added); ierr != nil {
		m.once.lost(mirror + " " + k)
		m.Log.Error("incident cannot be recorded", "err", ierr)
	}
}
