// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"log/slog"
	"strings"
	"sync"

	"github.com/zos-node/zos/zimage"
)

// Mirrors turns what the fetcher reports of mirrors into incidents, each
// mirror and kind once: one that lies does so thousands of times.
type Mirrors struct {
	Log      *slog.Logger
	Incident func(kind, detail string) error

	mu   sync.Mutex
	seen map[string]bool
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
	if m.seen == nil {
		m.seen = map[string]bool{}
	}
	if m.seen[mirror+" "+k] {
		return
	}
	m.seen[mirror+" "+k] = true
	m.Log.Warn("mirror fault", "mirror", mirror, "what", what, "kind", k, "err", err)
	if ierr := m.Incident(k, mirror+": "+what+": "+err.Error()); ierr != nil {
		m.Log.Error("incident cannot be recorded", "err", ierr)
	}
}
