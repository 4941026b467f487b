// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

// Package is one exact package file.
type Package struct {
	Name    string // as in the archive
	Version string
	SHA256  string // hex
	Size    int64
}

// Lock maps a wanted name to the package that was resolved for it. The two
// differ for metapackages, whose newest version names the real kernel.
type Lock map[string]Package

// ReadLock reads a lock file; a file that does not exist is an empty lock.
func ReadLock(path string) (Lock, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Lock{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	l, err := ParseLock(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// ParseLock reads lines of "wanted package version sha256 size".
func ParseLock(b []byte) (Lock, error) {
	l := Lock{}
	s := bufio.NewScanner(bytes.NewReader(b))
	for n := 1; s.Scan(); n++ {
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		f := strings.Fields(line)
		if len(f) != 5 {
			return nil, fmt.Errorf("line %d: %d words, want 5: wanted package version sha256 size", n, len(f))
		}
		if sum, err := hex.DecodeString(f[3]); err != nil || len(sum) != 32 {
			return nil, fmt.Errorf("line %d: %q is no SHA-256", n, f[3])
		}
		size, err := strconv.ParseInt(f[4], 10, 64)
		if err != nil || size <= 0 {
			return nil, fmt.Errorf("line %d: size %q", n, f[4])
		}
		if _, twice := l[f[0]]; twice {
			return nil, fmt.Errorf("line %d: %s stands twice", n, f[0])
		}
		l[f[0]] = Package{Name: f[1], Version: f[2], SHA256: f[3], Size: size}
	}
	if err := s.Err(); err != nil {
		return nil, fmt.Errorf("read lock: %w", err)
	}
	return l, nil
}

// Bytes is the lock file's text.
func (l Lock) Bytes(suite string) []byte {
	names := make([]string, 0, len(l))
	for n := range l {
		names = append(names, n)
	}
	sort.Strings(names)
	var b bytes.Buffer
	b.WriteString("# SPDX-License-Identifier: Apache-2.0\n")
	fmt.Fprintf(&b, "# Packages of Debian %s as they were resolved last: wanted package version sha256 size\n", suite)
	for _, n := range names {
		p := l[n]
		fmt.Fprintf(&b, "%s %s %s %s %d\n", n, p.Name, p.Version, p.SHA256, p.Size)
	}
	return b.Bytes()
}

// Write replaces the lock file.
func (l Lock) Write(path, suite string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	tmp := path + ".part"
	if err := os.WriteFile(tmp, l.Bytes(suite), 0o644); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}
