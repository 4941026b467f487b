// SPDX-License-Identifier: Apache-2.0

package boards

import (
	"bytes"
	"embed"
	"errors"
	"fmt"
	"io/fs"
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

// Load reads the board of a name.
func Load(name string) (Board, error) {
	b, err := files.ReadFile(name + ".yaml")
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrInvalid) {
		all, lerr := Names()
		return Board{}, errors.Join(fmt.Errorf("%w %q, there are: %s", ErrUnknown, name, strings.Join(all, ", ")), lerr)
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
	for field, value := range map[string]string{
		"name": board.Name, "about": board.About, "arch": board.Arch, "kernel": board.Kernel, "guestKernel": board.GuestKernel, "cmdline": board.Cmdline,
	} {
		if value == "" {
			return Board{}, fmt.Errorf("%s: missing", field)
		}
	}
	if !regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`).MatchString(board.Name) {
		return Board{}, fmt.Errorf("name: %q is no board name", board.Name)
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
