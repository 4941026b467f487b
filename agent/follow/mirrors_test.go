// SPDX-License-Identifier: Apache-2.0

package follow

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/zos-node/zos/zimage"
)

func TestMirrorsReportOncePerKind(t *testing.T) {
	var kinds, details []string
	now := time.Unix(1000, 0)
	broken := false
	m := &Mirrors{Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return now }, Incident: func(kind, detail string) error {
		if broken {
			return errors.New("the disk is full")
		}
		kinds, details = append(kinds, kind), append(details, detail)
		return nil
	}}
	faults := func() {
		m.Report("http://a", "chunk abc", zimage.ErrMismatch)
		m.Report("http://a", "manifest sha256:abc", fmt.Errorf("x: %w", zimage.ErrMismatch))
		m.Report("http://a", "blob sha256:abc", zimage.ErrMismatch)
		m.Report("http://a", "blob sha256:abc", zimage.ErrMissing)
		m.Report("http://b", "chunk abc", zimage.ErrMismatch)
	}
	all := []string{chunkMismatch, manifestMismatch, blobMismatch, mirrorMissing, chunkMismatch}
	broken = true
	faults()
	broken = false // what could not be recorded is recorded with the next
	for range 3 {
		faults()
	}
	if !slices.Equal(kinds, all) {
		t.Errorf("%v, want %v", kinds, all)
	}
	now, kinds, details = now.Add(again), nil, nil
	faults()
	if !slices.Equal(kinds, all) {
		t.Errorf("a while later: %v, want %v", kinds, all)
	}
	for _, d := range details {
		if !strings.HasSuffix(d, "; 2 more since 1970-01-01T00:16:40Z") {
			t.Errorf("%q does not say how many were held back", d)
		}
	}
	now, kinds = now.Add(again-time.Second), nil
	faults()
	if len(kinds) != 0 {
		t.Errorf("again too soon: %v", kinds)
	}
}
