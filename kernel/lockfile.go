// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"slices"
	"strings"

	"github.com/zos-node/zos/kernel/debian"
)

// Lockfile is the one file that pins by SHA-256 what a build and its tests
// download: packages of Debian, a line each as package debian has it, and files of
// other projects' releases, on lines that begin with the word "release".
type Lockfile struct {
	Packages debian.Lock
	Releases []Release
}

// Release is one file of a project's release.
type Release struct {
	Name    string `json:"name"` // of the project
	Arch    string `json:"arch"` // Debian's name
	Version string `json:"version"`
	SHA256  string `json:"sha256"` // hex; it vouches, the place does not
	URL     string `json:"url"`    // holds the version
}

// releaseWord begins a line "release name arch version sha256 url".
const releaseWord = "release"

// ReadLock reads a lock file; one that does not exist is empty.
func ReadLock(path string) (Lockfile, error) {
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return Lockfile{Packages: debian.Lock{}}, nil
	}
	if err != nil {
		return Lockfile{}, fmt.Errorf("read lock: %w", err)
	}
	l, err := ParseLock(b)
	if err != nil {
		return Lockfile{}, fmt.Errorf("%s: %w", path, err)
	}
	return l, nil
}

// ParseLock reads the text of one.
func ParseLock(b []byte) (Lockfile, error) {
	var l Lockfile
	var rest bytes.Buffer
	number := 0
	for line := range bytes.Lines(b) {
		number++
		if f := strings.Fields(string(line)); len(f) > 0 && f[0] == releaseWord {
			r, err := parseRelease(f)
			if err == nil && slices.ContainsFunc(l.Releases, func(o Release) bool { return o.Name == r.Name && o.Arch == r.Arch }) {
				err = fmt.Errorf("%s for %s stands twice", r.Name, r.Arch)
			}
			if err != nil {
				return Lockfile{}, fmt.Errorf("line %d: %w", number, err)
			}
			l.Releases = append(l.Releases, r)
			line = []byte("\n") // packages keep their line numbers
		}
		rest.Write(line)
	}
	var err error
	l.Packages, err = debian.ParseLock(rest.Bytes())
	return l, err
}

func parseRelease(f []string) (Release, error) {
	if len(f) != 6 {
		return Release{}, fmt.Errorf("%d words, want 6: release name arch version sha256 url", len(f))
	}
	r := Release{Name: f[1], Arch: f[2], Version: f[3], SHA256: f[4], URL: f[5]}
	if sum, err := hex.DecodeString(r.SHA256); err != nil || len(sum) != 32 || r.SHA256 != hex.EncodeToString(sum) {
		return Release{}, fmt.Errorf("%q is no SHA-256", r.SHA256)
	}
	if strings.ContainsRune(r.Version, '/') { // it is part of a file's name
		return Release{}, fmt.Errorf("version %q", r.Version)
	}
	if u, err := url.Parse(r.URL); err != nil || u.Host == "" || !strings.Contains(r.URL, r.Version) {
		return Release{}, fmt.Errorf("%q is no address of version %s", r.URL, r.Version)
	}
	return r, nil
}

// Bytes is the lock file's text.
func (l Lockfile) Bytes() []byte {
	b := bytes.NewBuffer(l.Packages.Bytes(Suite))
	if len(l.Releases) > 0 {
		b.WriteString("# Files of other projects' releases: release name arch version sha256 url\n")
	}
	for _, r := range slices.SortedFunc(slices.Values(l.Releases), func(a, b Release) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Arch, b.Arch))
	}) {
		fmt.Fprintln(b, releaseWord, r.Name, r.Arch, r.Version, r.SHA256, r.URL)
	}
	return b.Bytes()
}

// release is what the lock pins for an architecture.
func (l Lockfile) release(name, arch, file string) (Release, error) {
	for _, r := range l.Releases {
		if r.Name == name && r.Arch == arch {
			return r, nil
		}
	}
	return Release{}, fmt.Errorf("%s pins no release of %s for %s: a line \"release %s %s …\" is missing", file, name, arch, name, arch)
}
