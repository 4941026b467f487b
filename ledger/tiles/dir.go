// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/mod/sumdb/tlog"
)

// Dir is a folder that holds a log.
type Dir string

// ValidPath says whether a path can be a file of a log; nothing else is ever
// opened. The tests hold it against the regular expression for the same.
func ValidPath(path string) bool {
	switch path {
	case "checkpoint", "snapshot", "consensus", "pruned":
		return true
	}
	if version, ok := strings.CutPrefix(path, "root/"); ok {
		version, ok = strings.CutSuffix(version, ".json")
		return ok && isNumber(version, 9)
	}
	path, ok := strings.CutPrefix(path, "tile/")
	if !ok {
		return false
	}
	level, path, _ := strings.Cut(path, "/")
	if level != "entries" && level != "0" && !(isNumber(level, 2) && (len(level) == 1 || level <= "63")) {
		return false
	}
	path, width, partial := strings.Cut(path, ".p/")
	if partial && !isNumber(width, 3) {
		return false
	}
	for range 5 {
		group, rest, more := strings.Cut(path, "/")
		if !more {
			break
		}
		if len(group) != 4 || group[0] != 'x' || !digits(group[1:]) {
			return false
		}
		path = rest
	}
	return len(path) == 3 && digits(path)
}

// isNumber says whether s is a number above 0 of at most so many digits, without
// leading zeros.
func isNumber(s string, most int) bool { return s != "" && len(s) <= most && s[0] != '0' && digits(s) }

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return true
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

// Open is Read for a file that is too large to be read at once, as a snapshot is.
// What has been opened stays what it is when the next one takes its name.
func (d Dir) Open(path string) (*os.File, error) {
	if !ValidPath(path) {
		return nil, fmt.Errorf("%q is no file of a log: %w", path, fs.ErrNotExist)
	}
	return os.Open(filepath.Join(string(d), filepath.FromSlash(path)))
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
