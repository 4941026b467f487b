// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
)

// yarnLock reads yarn.lock of versions 1 (its own format) and 2 and later
// (YAML, of which it knows no more than yarn uses there).
func yarnLock(in *input) bool {
	var name, version string
	known := false
	flush := func() bool {
		ok := name == "" || version != ""
		if name != "" && ok {
			in.add(npmPackage(name, version))
		}
		name, version = "", ""
		return ok
	}
	for line := range in.lines() {
		known = known || strings.Contains(line, "# yarn lockfile v1") || strings.Contains(line, "__metadata:")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			if !flush() {
				return false
			}
			first, _, _ := strings.Cut(strings.TrimSuffix(line, ":"), ", ")
			if first = unquote(strings.TrimSuffix(first, `"`)); first == "__metadata" {
				continue
			}
			n, how, ok := nameAt(strings.TrimPrefix(first, `"`))
			if !ok {
				return false
			}
			if alias, _, ok := nameAt(strings.TrimPrefix(how, "npm:")); ok && strings.HasPrefix(how, "npm:") {
				n = alias
			}
			name = n
		case name == "" || len(line) < 3 || line[2] == ' ':
		default:
			key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
			switch strings.TrimSuffix(key, ":") {
			case "version":
				version = unquote(value)
			case "resolution":
				n, how, ok := nameAt(unquote(value))
				if ok {
					name = n
				}
				if strings.HasPrefix(how, "workspace:") {
					name = "" // the project itself
				}
			}
		}
	}
	return flush() && known
}

// nameAt cuts "@scope/name@rest".
func nameAt(s string) (name, rest string, ok bool) {
	if len(s) < 2 {
		return "", "", false
	}
	i := strings.IndexByte(s[1:], '@')
	if i < 0 {
		return "", "", false
	}
	return s[:i+1], s[i+2:], true
}

func unquote(s string) string { return strings.Trim(strings.TrimSpace(s), `"'`) }

// pnpmLock reads the keys of pnpm-lock.yaml's packages: "/name/1.0.0_peers"
// before version 6, "/name@1.0.0(peers)" in it, "name@1.0.0" since.
func pnpmLock(in *input) bool {
	version, inside := "", false
	var last Package
	flush := func() {
		if last.Type != "" {
			in.add(last)
		}
	}
	for line := range in.lines() {
		if v, ok := strings.CutPrefix(line, "lockfileVersion:"); ok {
			version = unquote(v)
			continue
		}
		switch {
		case line == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case line[0] != ' ':
			inside = line == "packages:"
		case !inside:
		case len(line) > 2 && strings.HasPrefix(line, "  ") && line[2] != ' ':
			key, ok := strings.CutSuffix(line, ":")
			if !ok {
				key, ok = strings.CutSuffix(line, ": {}")
			}
			name, v, whole := pnpmKey(unquote(key), version)
			if !ok || !whole {
				return false
			}
			flush()
			last = npmPackage(name, v)
		case len(line) > 4 && strings.HasPrefix(line, "    ") && line[4] != ' ' && last.Type != "": // what no registry has says its name here
			key, value, _ := strings.Cut(line[4:], ": ")
			switch key {
			case "name":
				last = npmPackage(unquote(value), last.Version)
			case "version":
				last.Version = unquote(value)
			}
		}
	}
	flush()
	return version != ""
}

func pnpmKey(key, lockfile string) (name, version string, ok bool) {
	key, _, _ = strings.Cut(strings.TrimPrefix(key, "/"), "(")
	if !strings.HasPrefix(lockfile, "5") {
		return nameAt(key)
	}
	i := strings.LastIndexByte(key, '/')
	if i <= 0 {
		return "", "", false
	}
	version, _, _ = strings.Cut(key[i+1:], "_")
	return key[:i], version, true
}

// bunLock reads bun.lock, JSON with commas that JSON does not have.
func bunLock(in *input) bool {
	j := in.json(func(r io.Reader) io.Reader { return &plainJSON{r: bufio.NewReader(r)} })
	some := false
	return j.whole(func(field string) (err error) {
		if field != "packages" {
			return j.skip()
		}
		some, err = j.object(func(string) error {
			var e []json.RawMessage
			var id string
			if err := j.decode(&e); err != nil {
				return err
			}
			if len(e) == 0 || json.Unmarshal(e[0], &id) != nil {
				return errKind
			}
			name, version, ok := nameAt(id)
			if !ok {
				return errKind
			}
			if !strings.HasPrefix(version, "workspace:") {
				in.add(npmPackage(name, version))
			}
			return nil
		})
		return err
	}) && some
}

// plainJSON leaves out the commas before a closing bracket, and the blanks
// behind any.
type plainJSON struct {
	r      *bufio.Reader
	quoted bool
	escape bool
	comma  bool // was read, and not given yet
}

// Read implements io.Reader.
func (p *plainJSON) Read(b []byte) (n int, err error) {
	for n < len(b) {
		c, err := p.r.ReadByte()
		if err != nil {
			if p.comma {
				b[n], p.comma = ',', false
				n++
			}
			return n, err
		}
		switch {
		case p.comma && (c == ' ' || c == '\n' || c == '\r' || c == '\t'):
			continue
		case p.comma:
			p.comma = false
			if c != ']' && c != '}' {
				if err := p.r.UnreadByte(); err != nil {
					return n, err
				}
				c = ','
			}
		case p.quoted:
			p.quoted = c != '"' || p.escape
			p.escape = c == '\\' && !p.escape
		case c == ',':
			p.comma = true
			continue
		default:
			p.quoted = c == '"'
		}
		b[n] = c
		n++
	}
	return n, nil
}

// pipfileLock reads Pipfile.lock.
func pipfileLock(in *input) bool {
	j := in.json(nil)
	return j.whole(func(field string) error {
		if field != "default" && field != "develop" {
			return j.skip()
		}
		_, err := j.object(func(name string) error {
			var p struct{ Version string }
			err := j.decode(&p)
			in.add(Package{Type: "pypi", Name: name, Version: strings.TrimPrefix(p.Version, "==")})
			return err
		})
		return err
	})
}
