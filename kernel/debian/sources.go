// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
)

// ErrNoSources says that the machine has no source of Debian's own archive.
var ErrNoSources = errors.New("no source of Debian's archive in /etc/apt")

// suffixes of a release's name that belong to Debian's own archive. Sources
// of others (vendor repositories) use other suites and are left out: they do
// not have our packages, and would fail after the release's name changed.
var suffixes = []string{"", "-updates", "-security", "/updates"}

// Sources reads the apt sources below etc (normally /etc/apt) and returns
// them in deb822 form for the release suite. own is the machine's release.
func Sources(etc, own, suite string) ([]byte, error) {
	files := []string{filepath.Join(etc, "sources.list")}
	for _, pattern := range []string{"*.list", "*.sources"} {
		found, err := filepath.Glob(filepath.Join(etc, "sources.list.d", pattern))
		if err != nil {
			return nil, fmt.Errorf("list apt sources: %w", err)
		}
		sort.Strings(found)
		files = append(files, found...)
	}
	var out bytes.Buffer
	for _, name := range files {
		b, err := os.ReadFile(name)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("read apt sources: %w", err)
		}
		if strings.HasSuffix(name, ".sources") {
			out.WriteString(stanzas(b, own, suite))
		} else {
			out.WriteString(oneLine(b, own, suite))
		}
	}
	if out.Len() == 0 {
		return nil, fmt.Errorf("%w: no entry for %s, main", ErrNoSources, own)
	}
	return out.Bytes(), nil
}

// components: firmware for real hardware stands apart since Debian 12. An
// archive without that part is fine until a board asks for it.
const components = "main non-free-firmware"

// rewrite exchanges the release in one suite; "" if the suite is not Debian's.
func rewrite(suite, own, to string) string {
	for _, base := range []string{own, "stable", "oldstable"} {
		for _, s := range suffixes {
			if suite == base+s {
				return to + s
			}
		}
	}
	return ""
}

// stanzas rewrites deb822 sources.
func stanzas(b []byte, own, to string) string {
	var out strings.Builder
	for _, stanza := range splitStanzas(string(b)) {
		fields := parseStanza(stanza)
		if strings.EqualFold(strings.TrimSpace(fields["Enabled"]), "no") || !has(fields["Types"], "deb") || !has(fields["Components"], "main") {
			continue
		}
		var suites []string
		for _, s := range strings.Fields(fields["Suites"]) {
			if s = rewrite(s, own, to); s != "" {
				suites = append(suites, s)
			}
		}
		if len(suites) == 0 {
			continue
		}
		fmt.Fprintf(&out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", strings.Join(strings.Fields(fields["URIs"]), " "), strings.Join(suites, " "), components)
		// "Trusted: yes" is not kept: nothing is taken from an archive that nobody signed.
		for _, keep := range []string{"Signed-By", "Check-Valid-Until"} {
			if v, ok := fields[keep]; ok {
				fmt.Fprintf(&out, "%s:%s\n", keep, v)
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// oneLine rewrites sources of the form "deb [options] URI suite component…".
func oneLine(b []byte, own, to string) string {
	var out strings.Builder
	s := bufio.NewScanner(bytes.NewReader(b))
	for s.Scan() {
		line, _, _ := strings.Cut(s.Text(), "#")
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if kind != "deb" {
			continue
		}
		rest = strings.TrimSpace(rest)
		options := ""
		if strings.HasPrefix(rest, "[") {
			var closed bool
			if options, rest, closed = strings.Cut(rest[1:], "]"); !closed {
				continue
			}
		}
		words := strings.Fields(rest)
		if len(words) < 3 || !has(strings.Join(words[2:], " "), "main") {
			continue
		}
		suite := rewrite(words[1], own, to)
		if suite == "" {
			continue
		}
		fmt.Fprintf(&out, "Types: deb\nURIs: %s\nSuites: %s\nComponents: %s\n", words[0], suite, components)
		for _, o := range strings.Fields(options) {
			if k, v, _ := strings.Cut(o, "="); strings.EqualFold(k, "signed-by") {
				fmt.Fprintf(&out, "Signed-By: %s\n", strings.ReplaceAll(v, ",", " "))
			}
		}
		out.WriteString("\n")
	}
	return out.String()
}

// splitStanzas cuts a deb822 text at its empty lines and drops comments.
func splitStanzas(text string) []string {
	var all []string
	var now []string
	flush := func() {
		if len(now) > 0 {
			all = append(all, strings.Join(now, "\n"))
			now = nil
		}
	}
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.HasPrefix(line, "#"):
		case strings.TrimSpace(line) == "":
			flush()
		default:
			now = append(now, line)
		}
	}
	flush()
	return all
}

// parseStanza returns the fields of a deb822 stanza; continuation lines stay
// in the value as they are, so that an inline key survives.
func parseStanza(stanza string) map[string]string {
	fields := map[string]string{}
	last := ""
	for _, line := range strings.Split(stanza, "\n") {
		if strings.HasPrefix(line, " ") || strings.HasPrefix(line, "\t") {
			fields[last] += "\n" + line
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		if ok {
			last = name
			fields[name] = value
		}
	}
	return fields
}

func has(list, word string) bool {
	for _, w := range strings.Fields(list) {
		if w == word {
			return true
		}
	}
	return false
}
