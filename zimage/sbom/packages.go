// SPDX-License-Identifier: Apache-2.0

package sbom

import (
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

// stanzas cuts a file of "Field: value" lines at its empty lines. Lines that
// go on are not kept: no field that is asked for has any.
func stanzas(b []byte) []map[string]string {
	var out []map[string]string
	now := map[string]string{}
	flush := func() {
		if len(now) > 0 {
			out = append(out, now)
			now = map[string]string{}
		}
	}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimRight(line, "\r\n")
		if line == "" {
			flush()
			continue
		}
		key, value, ok := strings.Cut(line, ":")
		if !ok || line[0] == ' ' || line[0] == '\t' {
			continue
		}
		if _, twice := now[key]; !twice {
			now[key] = strings.TrimSpace(value)
		}
	}
	flush()
	return out
}

// dpkg reads /var/lib/dpkg/status and files of status.d.
func dpkg(b []byte, file, distro string) ([]Package, bool) {
	var out []Package
	for _, s := range stanzas(b) {
		if s["Package"] == "" || s["Version"] == "" {
			continue
		}
		// Files of status.d have no Status: what is there is installed.
		if state := s["Status"]; state != "" && !strings.HasSuffix(state, " installed") {
			continue
		}
		out = append(out, Package{Type: "deb", Space: distro, Name: s["Package"], Version: s["Version"], Arch: s["Architecture"], Source: file})
	}
	return out, len(out) > 0
}

// apk reads /lib/apk/db/installed.
func apk(b []byte, file, distro string) ([]Package, bool) {
	var out []Package
	for _, s := range stanzas(b) {
		if s["P"] != "" && s["V"] != "" {
			out = append(out, Package{Type: "apk", Space: distro, Name: s["P"], Version: s["V"], Arch: s["A"], Source: file})
		}
	}
	return out, len(out) > 0
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
