// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"debug/buildinfo"
	"io"
	"path"
	"strings"
)

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

// pythonMetadata reads METADATA of a *.dist-info folder, or PKG-INFO: the
// fields before the first empty line.
func pythonMetadata(in *input) bool {
	found := false
	stanzas(in, func(s map[string]string) bool {
		if s["Name"] != "" {
			found = true
			in.add(Package{Type: "pypi", Name: strings.ToLower(strings.NewReplacer("_", "-", ".", "-").Replace(s["Name"])), Version: s["Version"]})
		}
		return false
	}, "Name", "Version")
	return found
}

func npmPackage(name, version string) Package {
	space, rest, scoped := strings.Cut(name, "/")
	if !scoped {
		space, rest = "", name
	}
	return Package{Type: "npm", Space: space, Name: rest, Version: version}
}

// packageJSON reads package.json of an installed npm package.
func packageJSON(in *input) bool {
	var name, version string
	j := in.json(nil)
	ok := j.whole(func(field string) error {
		switch field {
		case "name":
			return j.decode(&name)
		case "version":
			return j.decode(&version)
		}
		return j.skip()
	})
	if ok && name != "" && version != "" { // many files of that name are not a package's
		in.add(npmPackage(name, version))
	}
	return true
}

// packageLock reads "packages" of versions 2 and 3, by folder, or else
// "dependencies", by name.
func packageLock(in *input) bool {
	j := in.json(nil)
	var down func(depth int) error
	down = func(depth int) error {
		if depth > 50 {
			return errDeep
		}
		_, err := j.object(func(name string) error {
			var version string
			_, err := j.object(func(field string) error {
				switch field {
				case "version":
					return j.decode(&version)
				case "dependencies":
					return down(depth + 1)
				}
				return j.skip()
			})
			in.add(npmPackage(name, version))
			return err
		})
		return err
	}
	folders := func() (bool, error) {
		return j.object(func(dir string) error {
			var e struct {
				Name, Version string
				Link          bool
			}
			if err := j.decode(&e); err != nil {
				return err
			}
			i := strings.LastIndex(dir, "node_modules/")
			if i < 0 || e.Link || e.Version == "" {
				return nil
			}
			name := dir[i+len("node_modules/"):]
			if e.Name != "" {
				name = e.Name
			}
			in.add(npmPackage(name, e.Version))
			return nil
		})
	}
	newer := false
	return j.whole(func(field string) (err error) {
		switch {
		case field == "packages" && !newer:
			in.forget() // of "dependencies", which say the same of fewer
			newer, err = folders()
			return err
		case field == "dependencies" && !newer:
			return down(0)
		}
		return j.skip()
	})
}

// tomlLock reads the [[package]] tables that Cargo, Poetry and uv write. It
// knows no more of TOML than they use there.
func tomlLock(kind string) reader {
	return func(in *input) bool {
		var p Package
		inside, whole := false, true
		flush := func() {
			if p.Type != "" {
				whole = whole && p.Name != ""
				in.add(p)
			}
			p = Package{}
		}
		for line := range in.lines() {
			line = strings.TrimSpace(line)
			if strings.HasPrefix(line, "[") {
				if inside = line == "[[package]]"; inside {
					flush()
					p.Type = kind
				}
				continue
			}
			key, value, ok := strings.Cut(line, "=")
			value = strings.TrimSpace(value)
			if !inside || !ok || len(value) < 2 || value[0] != '"' || value[len(value)-1] != '"' {
				continue
			}
			switch strings.TrimSpace(key) {
			case "name":
				p.Name = value[1 : len(value)-1]
			case "version":
				p.Version = value[1 : len(value)-1]
			}
		}
		flush()
		return whole
	}
}

func gemfileLock(in *input) bool {
	specs := false
	for line := range in.lines() {
		switch {
		case line == "  specs:":
			specs = true
		case !strings.HasPrefix(line, "    "):
			specs = false
		case specs && len(line) > 4 && line[4] != ' ':
			name, version, ok := strings.Cut(strings.TrimSpace(line), " (")
			if ok {
				in.add(Package{Type: "gem", Name: name, Version: strings.TrimSuffix(version, ")")})
			}
		}
	}
	return true
}

func composerLock(in *input) bool {
	j := in.json(nil)
	return j.whole(func(field string) error {
		if field != "packages" {
			return j.skip()
		}
		return j.array(func() error {
			var p struct{ Name, Version string }
			err := j.decode(&p)
			space, name := path.Split(p.Name)
			in.add(Package{Type: "composer", Space: strings.TrimSuffix(space, "/"), Name: name, Version: p.Version})
			return err
		})
	})
}

// maxRead bounds one read of a Go program: its build information is read at
// once, and is as long as it says.
const maxRead = 4 << 20

type shortReads struct{ io.ReaderAt }

func (r shortReads) ReadAt(b []byte, off int64) (int, error) {
	if len(b) > maxRead {
		return 0, errPiece
	}
	return r.ReaderAt.ReadAt(b, off)
}

// goProgram reads what a Go program says of itself. What says nothing is no Go
// program, and has been read.
func goProgram(in *input) (ok bool) {
	// The reader is the standard library's and reads what others made: a
	// fault in it is a program that says nothing.
	defer func() {
		if recover() != nil {
			in.forget()
			ok = true
		}
	}()
	info, err := buildinfo.Read(shortReads{in.SectionReader})
	if err != nil {
		return true
	}
	module := func(name, version string) {
		if name == "" {
			return
		}
		space, last := path.Split(name)
		in.add(Package{Type: "golang", Space: strings.TrimSuffix(space, "/"), Name: last, Version: version})
	}
	module("std", strings.TrimPrefix(info.GoVersion, "go"))
	module(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		module(d.Path, d.Version)
	}
	return true
}
