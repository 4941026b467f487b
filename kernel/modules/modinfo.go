// SPDX-License-Identifier: Apache-2.0

package modules

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/ulikunitz/xz"
)

// ErrNoModule says that bytes are no kernel module.
var ErrNoModule = errors.New("not a kernel module")

// Info is what a module says about itself.
type Info struct {
	Name    string
	Depends []string
	Aliases []string
	SoftPre []string // modules that should be loaded before it
	// Firmware are the files below lib/firmware that it may ask for: all
	// revisions that it knows, of which a machine needs one.
	Firmware []string
}

// Norm is the one spelling of a module's name: the kernel uses "_" where file
// names may use "-".
func Norm(name string) string { return strings.ReplaceAll(name, "-", "_") }

// ReadInfo parses the .modinfo section of an uncompressed module.
func ReadInfo(ko []byte) (Info, error) {
	f, err := elf.NewFile(bytes.NewReader(ko))
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	s := f.Section(".modinfo")
	if s == nil {
		return Info{}, fmt.Errorf("%w: no .modinfo", ErrNoModule)
	}
	b, err := s.Data()
	if err != nil {
		return Info{}, fmt.Errorf("%w: %w", ErrNoModule, err)
	}
	return parseInfo(b), nil
}

// parseInfo reads the "key=value" strings, each ended by NUL.
func parseInfo(b []byte) Info {
	var i Info
	for _, pair := range bytes.Split(b, []byte{0}) {
		key, value, ok := strings.Cut(string(pair), "=")
		if !ok {
			continue
		}
		switch key {
		case "name":
			i.Name = Norm(value)
		case "alias":
			i.Aliases = append(i.Aliases, value)
		case "depends":
			for _, d := range strings.Split(value, ",") {
				if d != "" {
					i.Depends = append(i.Depends, Norm(d))
				}
			}
		case "firmware":
			i.Firmware = append(i.Firmware, value)
		case "softdep":
			i.SoftPre = append(i.SoftPre, softPre(value)...)
		}
	}
	return i
}

// softPre returns the "pre:" part of a soft dependency.
func softPre(value string) []string {
	var out []string
	in := false
	for _, w := range strings.Fields(value) {
		switch {
		case strings.HasSuffix(w, ":"):
			in = w == "pre:"
		case in:
			out = append(out, Norm(w))
		}
	}
	return out
}

// Decompress returns the bytes of a .ko or .ko.xz file. A module's signature
// stands behind its ELF data and survives.
func Decompress(name string, b []byte) ([]byte, error) {
	switch {
	case strings.HasSuffix(name, ".ko"):
		return b, nil
	case strings.HasSuffix(name, ".ko.xz"):
		r, err := xz.NewReader(bytes.NewReader(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out, err := io.ReadAll(r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		return out, nil
	}
	return nil, fmt.Errorf("%s: %w: neither .ko nor .ko.xz", name, ErrNoModule)
}
