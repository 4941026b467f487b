// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"golang.org/x/mod/sumdb/tlog"
)

// Dir is a folder that holds a log.
type Dir string

// names are the only files of a log; nothing else is ever opened.
var names = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(checkpoint|snapshot|consensus|pruned|root/[1-9][0-9]{0,8}\.json|tile/(entries|[0-9]|[1-5][0-9]|6[0-3])/(x[0-9]{3}/){0,5}[0-9]{3}(\.p/[1-9][0-9]{0,2})?)$`)
})

// ValidPath says whether a path can be a file of a log.
func ValidPath(path string) bool {
	return names().MatchString(path)
}

// Read returns a file of the log. A narrow tile or bundle is cut from the
// widest file that is there. A missing file is an fs.ErrNotExist.
func (d Dir) Read(path string) ([]byte, error) {
	if !ValidPath(path) {
		return nil, fmt.Errorf("%q is no file of a log: %w", path, fs.ErrNotExist)
	}
	b, err := os.ReadFile(filepath.Join(string(d), filepath.FromSlash(path)))
	full, width, partial := strings.Cut(path, ".p/")
	if err == nil || !errors.Is(err, fs.ErrNotExist) || !partial {
		return b, err
	}
	w, err := strconv.Atoi(width)
	if err != nil {
		return nil, fmt.Errorf("width of %q: %w", path, err)
	}
	wide, err := d.widest(full, w)
	if err != nil {
		return nil, err
	}
	return Cut(path, wide, w)
}

// Cut makes the file of width w from the bytes of a wider one.
func Cut(path string, wide []byte, w int) ([]byte, error) {
	if strings.HasPrefix(path, "tile/entries/") {
		_, used, err := CutBundle(wide, w)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return wide[:used], nil
	}
	if len(wide) < w*tlog.HashSize {
		return nil, fmt.Errorf("%s: has %d bytes, want %d", path, len(wide), w*tlog.HashSize)
	}
	return wide[:w*tlog.HashSize], nil
}

// widest reads the full file, else the widest partial one of at least w.
func (d Dir) widest(full string, w int) ([]byte, error) {
	// The writer may put a wider file in place of the one just listed.
	for range 5 {
		b, err := os.ReadFile(filepath.Join(string(d), filepath.FromSlash(full)))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
		folder := filepath.Join(string(d), filepath.FromSlash(full)+".p")
		list, err := os.ReadDir(folder)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		best := 0
		for _, f := range list {
			if n, err := strconv.Atoi(f.Name()); err == nil && n >= w {
				best = max(best, n)
			}
		}
		if best == 0 {
			continue
		}
		b, err = os.ReadFile(filepath.Join(folder, strconv.Itoa(best)))
		if err == nil || !errors.Is(err, fs.ErrNotExist) {
			return b, err
		}
	}
	return nil, fmt.Errorf("%s with %d entries: %w", full, w, fs.ErrNotExist)
}
