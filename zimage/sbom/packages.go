// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"slices"
	"strings"
)

// Package is a piece of software that an image says it has.
type Package struct {
	Type    string // of its package URL: "deb", "apk", "rpm", "golang", "pypi", "npm", "cargo", "gem", "composer"
	Space   string // of its package URL, such as "debian"; may be empty
	Name    string
	Version string
	Arch    string // may be empty
	Source  string // the file that says so
	Epoch   string // of an rpm; may be empty
}

// version is how people and their tools write it.
func (p Package) version() string {
	if p.Epoch != "" {
		return p.Epoch + ":" + p.Version
	}
	return p.Version
}

// purl is the package URL, in its canonical form.
func (p Package) purl() string {
	var b strings.Builder
	b.WriteString("pkg:" + p.Type + "/")
	if p.Space != "" {
		for part := range strings.SplitSeq(p.Space, "/") {
			b.WriteString(escape(part) + "/")
		}
	}
	b.WriteString(escape(p.Name))
	if p.Version != "" {
		b.WriteString("@" + escape(p.Version))
	}
	sep := "?"
	for _, q := range [][2]string{{"arch", p.Arch}, {"epoch", p.Epoch}} {
		if q[1] != "" {
			b.WriteString(sep + q[0] + "=" + escape(q[1]))
			sep = "&"
		}
	}
	return b.String()
}

// escape writes what a package URL may not have as it is in percent form.
func escape(s string) string {
	const hex = "0123456789ABCDEF"
	var b strings.Builder
	for _, c := range []byte(s) {
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte(".-_~:", c) >= 0 {
			b.WriteByte(c)
			continue
		}
		b.WriteString(string([]byte{'%', hex[c>>4], hex[c&15]}))
	}
	return b.String()
}

// cost is what a package takes of a document, about.
func (p Package) cost() int {
	return packageCost + len(p.Source) + 2*(len(p.Type)+len(p.Space)+len(p.Name)+len(p.Version)+len(p.Arch)+len(p.Epoch))
}

// stanzas cuts a file of "Field: value" lines at its empty lines, and tells of
// each the fields that are asked for. Lines that go on are not kept: no such
// field has any. The map is the next stanza's too.
func stanzas(in *input, each func(s map[string]string) (more bool), fields ...string) {
	now := map[string]string{}
	some := false
	for line := range in.lines() {
		if line == "" {
			if some && !each(now) {
				return
			}
			clear(now)
			some = false
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		some = true
		if _, twice := now[key]; !twice && slices.Contains(fields, key) {
			now[key] = strings.TrimSpace(value)
		}
	}
	if some {
		each(now)
	}
}

// dpkg reads /var/lib/dpkg/status and files of status.d.
func dpkg(in *input) bool {
	found := false
	stanzas(in, func(s map[string]string) bool {
		// Files of status.d have no Status: what is there is installed.
		state := s["Status"]
		if s["Package"] != "" && s["Version"] != "" && (state == "" || strings.HasSuffix(state, " installed")) {
			found = true
			in.add(Package{Type: "deb", Space: in.distro, Name: s["Package"], Version: s["Version"], Arch: s["Architecture"]})
		}
		return true
	}, "Package", "Version", "Status", "Architecture")
	return found
}

// apk reads /lib/apk/db/installed.
func apk(in *input) bool {
	found := false
	stanzas(in, func(s map[string]string) bool {
		if s["P"] != "" && s["V"] != "" {
			found = true
			in.add(Package{Type: "apk", Space: in.distro, Name: s["P"], Version: s["V"], Arch: s["A"]})
		}
		return true
	}, "P", "V", "A")
	return found
}

// distro is the ID of /etc/os-release.
func distro(b []byte) string {
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "ID="); ok {
			return strings.ToLower(strings.Trim(v, `"'`))
		}
	}
	return ""
}
