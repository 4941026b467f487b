// SPDX-License-Identifier: Apache-2.0

// Package deb writes Debian binary packages (deb(5), format 2.0): an ar archive
// of debian-binary, control.tar.gz and data.tar.gz. Owners, order, times and
// compression are fixed, so the same contents give the same bytes anywhere.
package deb

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/md5"
	"errors"
	"fmt"
	"io"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
)

// File is a regular file that is installed.
type File struct {
	Path string // absolute, clean
	Mode int64
	Data []byte
	// Conf makes it a configuration file: an upgrade keeps what its owner
	// changed.
	Conf bool
}

// Package is a binary package.
type Package struct {
	Name, Version, Arch string
	Maintainer, Section string
	Depends, Recommends string // as in the control file, "" for none
	Summary             string // one line
	Description         string // paragraphs, separated by empty lines
	Homepage            string
	Files               []File
	Scripts             map[string][]byte // "postinst", "prerm", "postrm", …
	Time                time.Time         // of every file
}

var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+$`)
	versionForm = regexp.MustCompile(`^[0-9][A-Za-z0-9.+~]*$`) // native: no epoch, no revision
)

// Write writes the package.
func (p Package) Write(to io.Writer) error {
	if !nameForm.MatchString(p.Name) || !versionForm.MatchString(p.Version) {
		return fmt.Errorf("deb: %q %q is no name and version of a native package", p.Name, p.Version)
	}
	files := slices.SortedFunc(slices.Values(p.Files), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	for i, f := range files {
		if !path.IsAbs(f.Path) || path.Clean(f.Path) != f.Path || i > 0 && files[i-1].Path == f.Path {
			return fmt.Errorf("deb: %q is no clean absolute path, or is there twice", f.Path)
		}
	}
	data, size, err := p.data(files)
	if err != nil {
		return err
	}
	control, err := p.control(files, size)
	if err != nil {
		return err
	}
	var out bytes.Buffer
	out.WriteString("!<arch>\n")
	for _, m := range []struct {
		name string
		data []byte
	}{{"debian-binary", []byte("2.0\n")}, {"control.tar.gz", control}, {"data.tar.gz", data}} {
		fmt.Fprintf(&out, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", m.name, p.Time.Unix(), 0, 0, "100644", len(m.data))
		out.Write(m.data)
		if len(m.data)%2 == 1 {
			out.WriteByte('\n')
		}
	}
	if _, err := to.Write(out.Bytes()); err != nil {
		return fmt.Errorf("deb: %w", err)
	}
	return nil
}

// data is the archive of what is installed; size is in KiB, as dpkg counts it.
func (p Package) data(files []File) (b []byte, size int64, err error) {
	var all []*tar.Header
	contents := map[string][]byte{}
	folders := map[string]bool{"/": true}
	for _, f := range files {
		for d := path.Dir(f.Path); ; d = path.Dir(d) {
			folders[d] = true
			if d == "/" {
				break
			}
		}
		all = append(all, &tar.Header{Typeflag: tar.TypeReg, Name: "." + f.Path, Mode: f.Mode, Size: int64(len(f.Data))})
		contents["."+f.Path] = f.Data
		size += (int64(len(f.Data)) + 1023) / 1024
	}
	for d := range folders {
		all = append(all, &tar.Header{Typeflag: tar.TypeDir, Name: strings.TrimSuffix("."+d, "/") + "/", Mode: 0o755})
		size++
	}
	b, err = p.archive(all, contents)
	return b, size, err
}

// control is the archive of what dpkg wants to know.
func (p Package) control(files []File, size int64) ([]byte, error) {
	var c, sums, conf strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&c, "%s: %s\n", name, value)
		}
	}
	field("Package", p.Name)
	field("Version", p.Version)
	field("Architecture", p.Arch)
	field("Maintainer", p.Maintainer)
	field("Installed-Size", fmt.Sprint(size))
	field("Depends", p.Depends)
	field("Recommends", p.Recommends)
	field("Section", p.Section)
	field("Priority", "optional")
	field("Homepage", p.Homepage)
	field("Description", p.Summary)
	for line := range strings.Lines(p.Description) {
		if line = strings.TrimRight(line, "\n"); line == "" {
			line = "."
		}
		fmt.Fprintf(&c, " %s\n", line)
	}
	for _, f := range files {
		if f.Conf {
			fmt.Fprintln(&conf, f.Path)
		} else {
			fmt.Fprintf(&sums, "%x  %s\n", md5.Sum(f.Data), f.Path[1:])
		}
	}
	contents := map[string][]byte{"./control": []byte(c.String()), "./md5sums": []byte(sums.String())}
	if conf.Len() > 0 {
		contents["./conffiles"] = []byte(conf.String())
	}
	for name, script := range p.Scripts {
		contents["./"+name] = script
	}
	all := []*tar.Header{{Typeflag: tar.TypeDir, Name: "./", Mode: 0o755}}
	for _, name := range slices.Sorted(maps.Keys(contents)) {
		mode := int64(0o644)
		if p.Scripts[name[2:]] != nil {
			mode = 0o755
		}
		all = append(all, &tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(contents[name]))})
	}
	return p.archive(all, contents)
}

func (p Package) archive(all []*tar.Header, contents map[string][]byte) (b []byte, err error) {
	slices.SortFunc(all, func(a, b *tar.Header) int { return strings.Compare(a.Name, b.Name) })
	var out bytes.Buffer
	zip, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("deb: %w", err)
	}
	w := tar.NewWriter(zip)
	for _, h := range all {
		h.ModTime, h.Uname, h.Gname, h.Format = p.Time.UTC().Truncate(time.Second), "root", "root", tar.FormatGNU
		if err := w.WriteHeader(h); err != nil {
			return nil, fmt.Errorf("deb: %s: %w", h.Name, err)
		}
		if _, err := w.Write(contents[h.Name]); err != nil {
			return nil, fmt.Errorf("deb: %s: %w", h.Name, err)
		}
	}
	if err := errors.Join(w.Close(), zip.Close()); err != nil {
		return nil, fmt.Errorf("deb: %w", err)
	}
	return out.Bytes(), nil
}

// Gzip compresses a document the way packages want it: at best, without a name.
func Gzip(b []byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := gzip.NewWriterLevel(&out, gzip.BestCompression)
	if err != nil {
		return nil, fmt.Errorf("deb: %w", err)
	}
	if _, err := w.Write(b); err != nil {
		return nil, fmt.Errorf("deb: %w", err)
	}
	if err := w.Close(); err != nil {
		return nil, fmt.Errorf("deb: %w", err)
	}
	return out.Bytes(), nil
}
