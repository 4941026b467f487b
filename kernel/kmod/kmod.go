// SPDX-License-Identifier: Apache-2.0

// Package kmod loads kernel modules at run time: by name with what they
// depend on, and by the modalias of a device. It reads the text files that
// kernel/modules wrote into the initramfs; there is no modprobe.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnknown says that the initramfs has no such module.
var ErrUnknown = errors.New("no such module in this image")

// ErrNoDevice says that a module found no hardware that it is for.
var ErrNoDevice = errors.New("module is not for this machine")

// alias is one pattern; literal is its start up to the first character that
// stands for others, which spares most of them the whole comparison.
type alias struct{ literal, pattern, module string }

// Index knows the modules of one folder lib/modules/RELEASE.
type Index struct {
	dir     string
	file    map[string]string   // name to path below dir
	deps    map[string][]string // name to paths below dir, in load order
	soft    map[string][]string // name to names
	aliases []alias
	load    []string
	late    []string
	wait    []string
	builtin map[string]bool
	loaded  map[string]error // what Load came to
	files   map[string]error // what insert came to
	insert  func(file string) error
}

// Open reads the index files of a folder.
func Open(dir string) (*Index, error) {
	x := &Index{
		dir: dir, file: map[string]string{}, deps: map[string][]string{}, soft: map[string][]string{},
		builtin: map[string]bool{}, loaded: map[string]error{}, files: map[string]error{}, insert: Insert,
	}
	for name, take := range map[string]func(line string){
		"modules.dep": x.takeDep, "modules.alias": x.takeAlias, "modules.softdep": x.takeSoft,
		"modules.load":    func(line string) { x.load = append(x.load, Norm(line)) },
		"modules.late":    func(line string) { x.late = append(x.late, Norm(line)) },
		"modules.wait":    func(line string) { x.wait = append(x.wait, Norm(line)) },
		"modules.builtin": func(line string) { x.builtin[name(line)] = true },
	} {
		if err := lines(filepath.Join(dir, name), take); err != nil {
			return nil, fmt.Errorf("module index: %w", err)
		}
	}
	return x, nil
}

func lines(file string, take func(string)) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer f.Close()
	scan := bufio.NewScanner(f)
	for scan.Scan() {
		if line := strings.TrimSpace(scan.Text()); line != "" && line[0] != '#' {
			take(line)
		}
	}
	return scan.Err()
}

// Norm is the one spelling of a module's name.
func Norm(s string) string { return strings.ReplaceAll(s, "-", "_") }

// packed ends the names of modules that are compressed as Debian does it.
const packed = ".xz"

// name of the module in a file.
func name(file string) string {
	return Norm(strings.TrimSuffix(strings.TrimSuffix(path.Base(file), packed), ".ko"))
}

func (x *Index) takeDep(line string) {
	own, rest, _ := strings.Cut(line, ":")
	needs := strings.Fields(rest)
	// depmod names the nearest first; they have to be loaded from the far end.
	for i, j := 0, len(needs)-1; i < j; i, j = i+1, j-1 {
		needs[i], needs[j] = needs[j], needs[i]
	}
	x.file[name(own)], x.deps[name(own)] = own, needs
}

func (x *Index) takeAlias(line string) {
	if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
		literal := f[1]
		if i := strings.IndexAny(literal, `*?[\`); i >= 0 {
			literal = literal[:i]
		}
		x.aliases = append(x.aliases, alias{literal, f[1], Norm(f[2])})
	}
}

func (x *Index) takeSoft(line string) {
	if f := strings.Fields(line); len(f) > 3 && f[0] == "softdep" && f[2] == "pre:" {
		x.soft[Norm(f[1])] = f[3:]
	}
}

// Boot lists the modules that the image wants loaded at boot, in order.
func (x *Index) Boot() []string { return x.load }

// Late lists those that it wants loaded while the agent starts.
func (x *Index) Late() []string { return x.late }

// Waiting lists those that it wants loaded then, where a device asks for them.
func (x *Index) Waiting() []string { return x.wait }

// Load loads a module and what it needs. A built-in one is there already.
// What a module came to is remembered: it is tried once.
func (x *Index) Load(module string) error {
	module = Norm(module)
	if err, tried := x.loaded[module]; tried {
		return err
	}
	x.loaded[module] = nil // breaks circles of soft dependencies
	err := x.loadNow(module)
	x.loaded[module] = err
	return err
}

func (x *Index) loadNow(module string) error {
	own, known := x.file[module]
	if !known {
		if x.builtin[module] {
			return nil
		}
		return fmt.Errorf("%s: %w", module, ErrUnknown)
	}
	for _, s := range x.soft[module] {
		// A soft dependency helps where it is there; its absence is no error.
		if err := x.Load(s); err != nil && !errors.Is(err, ErrUnknown) && !errors.Is(err, ErrNoDevice) {
			return fmt.Errorf("%s wants %w", module, err)
		}
	}
	for _, dep := range append(x.deps[module][:len(x.deps[module]):len(x.deps[module])], own) {
		if err := x.once(dep); err != nil {
			return err
		}
	}
	return nil
}

// once inserts a file that no module before has needed. The kernel would say
// that it is there already, but only after it has unpacked it and checked its
// signature.
func (x *Index) once(file string) error {
	err, tried := x.files[file]
	if !tried {
		err = x.insert(filepath.Join(x.dir, filepath.FromSlash(file)))
		x.files[file] = err
	}
	return err
}

// Wanted is a module that somebody needs at a moment of his own.
type Wanted struct {
	Name     string
	Optional bool // a kernel, or a machine, without it is fine
}

// LoadAll loads modules in order, of the kernel that runs.
func LoadAll(wanted []Wanted) error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return fmt.Errorf("uname: %w", err)
	}
	x, err := Open("/lib/modules/" + unix.ByteSliceToString(u.Release[:]))
	if err != nil {
		return err
	}
	return x.loadAll(wanted)
}

func (x *Index) loadAll(wanted []Wanted) error {
	for _, w := range wanted {
		err := x.Load(w.Name)
		if w.Optional && (errors.Is(err, ErrUnknown) || errors.Is(err, ErrNoDevice)) {
			continue
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Match lists the modules that say that they are for a modalias.
func (x *Index) Match(modalias string) []string {
	var all []string
	for _, a := range x.aliases {
		if !strings.HasPrefix(modalias, a.literal) {
			continue
		}
		if ok, err := path.Match(a.pattern, modalias); err == nil && ok {
			all = append(all, a.module)
		}
	}
	return all
}
