// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"debug/buildinfo"
	"encoding/json"
	"io"
	"maps"
	"path"
	"slices"
	"strings"
)

// reader turns a file into packages; false means that it could not.
type reader func(b []byte, file string) ([]Package, bool)

// lockFiles are read wherever they stand, by their name.
var lockFiles = map[string]reader{
	"package-lock.json":   packageLock,
	".package-lock.json":  packageLock, // what npm keeps in node_modules
	"Cargo.lock":          tomlLock("cargo"),
	"poetry.lock":         tomlLock("pypi"),
	"uv.lock":             tomlLock("pypi"),
	"Gemfile.lock":        gemfileLock,
	"composer.lock":       composerLock,
	"npm-shrinkwrap.json": packageLock,
	"yarn.lock":           yarnLock,
	"pnpm-lock.yaml":      pnpmLock,
	"bun.lock":            bunLock,
	"Pipfile.lock":        pipfileLock,
	"pdm.lock":            tomlLock("pypi"),
}

// foreign says whether a file is a database or a lock file that is known, and
// not read.
func foreign(dir, name string) bool {
	switch name {
	case "bun.lockb", "gradle.lockfile", "pubspec.lock", "mix.lock", "rebar.lock", "Podfile.lock", "Package.resolved",
		"packages.lock.json", "conan.lock", "cabal.project.freeze", "stack.yaml.lock", "flake.lock", "deno.lock", "pylock.toml", "pixi.lock":
		return true
	case "Packages", "Packages.db", "rpmdb.sqlite-wal": // Berkeley DB; NDB; what is not in the SQLite database yet
		return rpmFolders[dir]
	case "desc":
		return strings.HasPrefix(dir, "/var/lib/pacman/local/")
	case "status":
		return strings.HasSuffix(dir, "/lib/opkg")
	case "CONTENTS":
		return strings.HasPrefix(dir, "/var/db/pkg/")
	case "db.sqlite":
		return dir == "/nix/var/nix/db"
	}
	switch path.Ext(name) {
	case ".jar", ".war", ".ear":
		return true
	case ".json":
		return strings.HasSuffix(name, ".deps.json") || path.Base(dir) == "conda-meta"
	}
	return false
}

// rpmFolders are where rpm keeps its database.
var rpmFolders = map[string]bool{"/var/lib/rpm": true, "/usr/lib/sysimage/rpm": true, "/usr/share/rpm": true}

// pythonMetadata reads METADATA of a *.dist-info folder, or PKG-INFO.
func pythonMetadata(b []byte, file string) ([]Package, bool) {
	head, _, _ := strings.Cut(strings.ReplaceAll(string(b), "\r\n", "\n"), "\n\n")
	for _, s := range stanzas([]byte(head)) {
		if s["Name"] != "" {
			name := strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s["Name"]))
			return []Package{{Type: "pypi", Name: name, Version: s["Version"], Source: file}}, true
		}
	}
	return nil, false
}

func npmPackage(name, version, file string) Package {
	space, rest, scoped := strings.Cut(name, "/")
	if !scoped {
		space, rest = "", name
	}
	return Package{Type: "npm", Space: space, Name: rest, Version: version, Source: file}
}

// packageJSON reads package.json of an installed npm package.
func packageJSON(b []byte, file string) ([]Package, bool) {
	var p struct{ Name, Version string }
	if json.Unmarshal(b, &p) != nil || p.Name == "" || p.Version == "" {
		return nil, true // many files of that name are not a package's
	}
	return []Package{npmPackage(p.Name, p.Version, file)}, true
}

func packageLock(b []byte, file string) ([]Package, bool) {
	type entry struct {
		Name, Version string
		Link          bool
		Dependencies  map[string]json.RawMessage
	}
	var lock struct {
		Packages     map[string]entry // of versions 2 and 3, by folder
		Dependencies map[string]json.RawMessage
	}
	if json.Unmarshal(b, &lock) != nil {
		return nil, false
	}
	var out []Package
	for _, dir := range slices.Sorted(maps.Keys(lock.Packages)) {
		e := lock.Packages[dir]
		i := strings.LastIndex(dir, "node_modules/")
		if i < 0 || e.Link || e.Version == "" {
			continue
		}
		name := dir[i+len("node_modules/"):]
		if e.Name != "" {
			name = e.Name
		}
		out = append(out, npmPackage(name, e.Version, file))
	}
	if lock.Packages != nil {
		return out, true
	}
	var down func(deps map[string]json.RawMessage, depth int) bool
	down = func(deps map[string]json.RawMessage, depth int) bool {
		for _, name := range slices.Sorted(maps.Keys(deps)) {
			var e entry
			if depth > 50 || json.Unmarshal(deps[name], &e) != nil {
				return false
			}
			out = append(out, npmPackage(name, e.Version, file))
			if !down(e.Dependencies, depth+1) {
				return false
			}
		}
		return true
	}
	return out, down(lock.Dependencies, 0)
}

// tomlLock reads the [[package]] tables that Cargo, Poetry and uv write. It
// knows no more of TOML than they use there.
func tomlLock(kind string) reader {
	return func(b []byte, file string) ([]Package, bool) {
		var out []Package
		inside := false
		for line := range strings.Lines(string(b)) {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				if inside = line == "[[package]]"; inside {
					out = append(out, Package{Type: kind, Source: file})
				}
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			value = strings.TrimSpace(value)
			if !inside || !ok || len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
				continue
			}
			p := &out[len(out)-1]
			switch strings.TrimSpace(key) {
			case "name":
				p.Name = value[1 : len(value)-1]
			case "version":
				p.Version = value[1 : len(value)-1]
			}
		}
		whole := !slices.ContainsFunc(out, func(p Package) bool { return p.Name == "" })
		return out, whole
	}
}

func gemfileLock(b []byte, file string) ([]Package, bool) {
	var out []Package
	specs := false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "  specs:":
			specs = true
		case !strings.HasPrefix(line, "    "):
			specs = false
		case specs && len(line) > 4 && line[4] != ' ':
			name, version, ok := strings.Cut(strings.TrimSpace(line), " (")
			if ok {
				out = append(out, Package{Type: "gem", Name: name, Version: strings.TrimSuffix(version, ")"), Source: file})
			}
		}
	}
	return out, true
}

func composerLock(b []byte, file string) ([]Package, bool) {
	var lock struct {
		Packages []struct{ Name, Version string }
	}
	if json.Unmarshal(b, &lock) != nil {
		return nil, false
	}
	var out []Package
	for _, p := range lock.Packages {
		space, name := path.Split(p.Name)
		out = append(out, Package{Type: "composer", Space: strings.TrimSuffix(space, "/"), Name: name, Version: p.Version, Source: file})
	}
	return out, true
}

// goProgram reads what a Go program says of itself; none is no Go program.
func goProgram(r io.ReaderAt, file string) (out []Package) {
	// The reader is the standard library's and reads what others made: a
	// fault in it is a program that says nothing.
	defer func() {
		if recover() != nil {
			out = nil
		}
	}()
	info, err := buildinfo.Read(r)
	if err != nil {
		return nil
	}
	module := func(name, version string) {
		if name == "" {
			return
		}
		space, last := path.Split(name)
		out = append(out, Package{Type: "golang", Space: strings.TrimSuffix(space, "/"), Name: last, Version: version, Source: file})
	}
	module("std", strings.TrimPrefix(info.GoVersion, "go"))
	module(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		module(d.Path, d.Version)
	}
	return out
}
