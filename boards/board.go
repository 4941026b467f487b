// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"go.yaml.in/yaml/v4"
)

//go:embed *.yaml
var files embed.FS

// ErrUnknown says that there is no such board.
var ErrUnknown = errors.New("unknown board")

// Board is one kind of machine.
type Board struct {
	Name        string   `yaml:"name"`
	About       string   `yaml:"about"`
	Arch        string   `yaml:"arch"`        // Debian's and Go's name
	Kernel      string   `yaml:"kernel"`      // package of the node's kernel
	GuestKernel string   `yaml:"guestKernel"` // package of the guests' kernel
	Modules     []string `yaml:"modules"`     // sets of kernel/modules, in load order
	Drivers     []string `yaml:"drivers"`     // what is promised of the sets: without one of these no image is made
	Firmware    []string `yaml:"firmware"`    // Debian's packages; what the modules ask for is taken from them
	Initramfs   string   `yaml:"initramfs"`   // how it is compressed: lz4 (soonest unpacked) or zstd (smallest)
	Cmdline     string   `yaml:"cmdline"`
	ESPMiB      int64    `yaml:"espMiB"` // boot partition
}

// Names are all boards, sorted.
func Names() ([]string, error) {
	found, err := fs.Glob(files, "*.yaml")
	if err != nil {
		return nil, fmt.Errorf("list boards: %w", err)
	}
	for i, f := range found {
		found[i] = strings.TrimSuffix(f, ".yaml")
	}
	return found, nil
}

const (
	fileExt = ".yaml"
	maxFile = 64 << 10 // bytes; a board of ours has 2 KiB
)

// NameOf is the name of the board that a word means: one of ours by its name, or
// a file's by the name before its ending.
func NameOf(word string) string { return strings.TrimSuffix(filepath.Base(word), fileExt) }

// Open reads the board that a word means: a file, when it ends in .yaml, else one
// of ours. A file's board has the file's name, and none of ours, unless it is the
// same: releases and updates tell boards apart by name.
func Open(word string) (Board, error) {
	if filepath.Ext(word) != fileExt {
		return Load(word)
	}
	st, err := os.Stat(word)
	if err != nil {
		return Board{}, fmt.Errorf("board: %w", err)
	}
	if !st.Mode().IsRegular() || st.Size() > maxFile {
		return Board{}, fmt.Errorf("board %s: want a regular file of at most %d bytes", word, maxFile)
	}
	b, err := os.ReadFile(word)
	if err != nil {
		return Board{}, fmt.Errorf("board: %w", err)
	}
	board, err := Decode(b)
	if err != nil {
		return Board{}, fmt.Errorf("board %s: %w", word, err)
	}
	if board.Name != NameOf(word) {
		return Board{}, fmt.Errorf("board %s: its name field says %q, want the file's name without %s", word, board.Name, fileExt)
	}
	switch ours, err := Load(board.Name); {
	case errors.Is(err, ErrUnknown):
	case err != nil:
		return Board{}, err
	case !reflect.DeepEqual(ours, board):
		return Board{}, fmt.Errorf("board %s: %s is the name of another board, which zos has itself: rename the file and its name field", word, board.Name)
	}
	return board, nil
}

// Load reads the board of a name.
func Load(name string) (Board, error) {
	b, err := files.ReadFile(name + ".yaml")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		all, lerr := Names()
		return Board{}, errors.Join(fmt.Errorf("%w %q, there are: %s; or name a file that ends in %s", ErrUnknown, name, strings.Join(all, ", "), fileExt), lerr)
	}
	if err != nil {
		return Board{}, fmt.Errorf("board %s: %w", name, err)
	}
	board, err := Decode(b)
	if err != nil {
		return Board{}, fmt.Errorf("board %s: %w", name, err)
	}
	if board.Name != name {
		return Board{}, fmt.Errorf("board %s: its name field says %q", name, board.Name)
	}
	return board, nil
}

// Decode reads a board file; unknown and missing fields are refused.
func Decode(b []byte) (Board, error) {
	var board Board
	dec := yaml.NewDecoder(bytes.NewReader(b))
	dec.KnownFields(true)
	if err := dec.Decode(&board); err != nil {
		return Board{}, err
	}
	if err := dec.Decode(&struct{}{}); !errors.Is(err, io.EOF) {
		return Board{}, errors.New("there is a second document in it, want one")
	}
	for _, f := range [][2]string{
		{"name", board.Name}, {"about", board.About}, {"arch", board.Arch}, {"kernel", board.Kernel}, {"guestKernel", board.GuestKernel}, {"cmdline", board.Cmdline},
	} {
		if f[1] == "" {
			return Board{}, fmt.Errorf("%s: missing", f[0])
		}
	}
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`).MatchString(board.Name) {
		return Board{}, fmt.Errorf("name: %q is no board name", board.Name)
	}
	if board.Arch != "amd64" && board.Arch != "arm64" {
		return Board{}, fmt.Errorf("arch: %q, want amd64 or arm64", board.Arch)
	}
	if strings.ContainsAny(board.Cmdline, "\n\t") {
		return Board{}, fmt.Errorf("cmdline: %q is not one line", board.Cmdline)
	}
	if board.Initramfs != "lz4" && board.Initramfs != "zstd" {
		return Board{}, fmt.Errorf("initramfs: %q, want lz4 or zstd", board.Initramfs)
	}
	if len(board.Modules) == 0 {
		return Board{}, errors.New("modules: missing")
	}
	if board.ESPMiB < 64 || board.ESPMiB > 4096 {
		return Board{}, fmt.Errorf("espMiB: %d, want 64 to 4096", board.ESPMiB)
	}
	return board, nil
}
