// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
)

// yarnLock reads yarn.lock of versions 1 (its own format) and 2 and later
// (YAML, of which it knows no more than yarn uses there).
func yarnLock(b []byte, file string) ([]Package, bool) {
	text := string(b)
	if !strings.Contains(text, "# yarn lockfile v1") && !strings.Contains(text, "__metadata:") {
		return nil, false
	}
	var out []Package
	var name, version string
	flush := func() bool {
		ok := name == "" || version != ""
		if name != "" && ok {
			out = append(out, npmPackage(name, version, file))
		}
		name, version = "", ""
		return ok
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case line == "" || line[0] == '#':
		case line[0] != ' ':
			if !flush() {
				return nil, false
			}
			first, _, _ := strings.Cut(strings.TrimSuffix(line, ":"), ", ")
			if first = unquote(strings.TrimSuffix(first, `"`)); first == "__metadata" {
				continue
			}
			n, how, ok := nameAt(strings.TrimPrefix(first, `"`))
			if !ok {
				return nil, false
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
	return out, flush()
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
func pnpmLock(b []byte, file string) ([]Package, bool) {
	var out []Package
	version, inside := "", false
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if v, ok := strings.CutPrefix(line, "lockfileVersion:"); ok {
			version = unquote(v)
			continue
		}
		switch {
		case line == "" || strings.HasPrefix(strings.TrimSpace(line), "#"):
		case line[0] != ' ':
			inside = line == "packages:"
		case !inside:
		case strings.HasPrefix(line, "  ") && line[2] != ' ':
			key, ok := strings.CutSuffix(line, ":")
			if !ok {
				key, ok = strings.CutSuffix(line, ": {}")
			}
			name, v, whole := pnpmKey(unquote(key), version)
			if !ok || !whole {
				return nil, false
			}
			out = append(out, npmPackage(name, v, file))
		case strings.HasPrefix(line, "    ") && line[4] != ' ' && len(out) > 0: // what no registry has says its name here
			key, value, _ := strings.Cut(line[4:], ": ")
			last := &out[len(out)-1]
			switch key {
			case "name":
				*last = npmPackage(unquote(value), last.Version, file)
			case "version":
				last.Version = unquote(value)
			}
		}
	}
	return out, version != ""
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
func bunLock(b []byte, file string) ([]Package, bool) {
	var lock struct {
		Packages map[string][]json.RawMessage
	}
	if json.Unmarshal(plainJSON(b), &lock) != nil || lock.Packages == nil {
		return nil, false
	}
	var out []Package
	for _, key := range slices.Sorted(maps.Keys(lock.Packages)) {
		var id string
		if e := lock.Packages[key]; len(e) == 0 || json.Unmarshal(e[0], &id) != nil {
			return nil, false
		}
		name, version, ok := nameAt(id)
		if !ok {
			return nil, false
		}
		if !strings.HasPrefix(version, "workspace:") {
			out = append(out, npmPackage(name, version, file))
		}
	}
	return out, true
}

// plainJSON leaves out the commas before a closing bracket.
func plainJSON(b []byte) []byte {
	out := make([]byte, 0, len(b))
	comma, quoted := -1, false
	for i := 0; i < len(b); i++ {
		c := b[i]
		out = append(out, c)
		switch {
		case quoted && c == '\\' && i+1 < len(b):
			i++
			out = append(out, b[i])
		case c == '"':
			quoted, comma = !quoted, -1
		case quoted:
		case c == ',':
			comma = len(out) - 1
		case (c == ']' || c == '}') && comma >= 0:
			out[comma], comma = ' ', -1
		case c != ' ' && c != '\n' && c != '\r' && c != '\t':
			comma = -1
		}
	}
	return out
}

// pipfileLock reads Pipfile.lock.
func pipfileLock(b []byte, file string) ([]Package, bool) {
	var lock struct {
		Default, Develop map[string]struct{ Version string }
	}
	if json.Unmarshal(b, &lock) != nil {
		return nil, false
	}
	var out []Package
	for _, group := range []map[string]struct{ Version string }{lock.Default, lock.Develop} {
		for _, name := range slices.Sorted(maps.Keys(group)) {
			out = append(out, Package{Type: "pypi", Name: name, Version: strings.TrimPrefix(group[name].Version, "=="), Source: file})
		}
	}
	return out, true
}
