// SPDX-License-Identifier: Apache-2.0

// Package lastwords carries over a restart what a machine could say to nobody
// any more. The kernel's persistent store (pstore: UEFI variables, or a
// server's ACPI error record table) keeps the end of the kernel's log when the
// kernel dies, and, where init asks for it, when the node stops itself. After
// the next boot Collect makes one Report of each death.
//
// Reports are handed to the agent as files: Dir/NAME.json, one Report each. The
// agent puts them on the ledger; when they stand there it removes first
// Report.Files and then the report, so that none is lost and none is told
// again after it was told. agent/lastwords is the other end.
package lastwords

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// Pstore is where the kernel shows its persistent store.
	Pstore = "/sys/fs/pstore"
	// Dir is where reports wait for the agent. It is a file system of its own:
	// a full one elsewhere must not silence them.
	Dir = "/run/lastwords"
)

// Report is what happened to the node, for the ledger.
type Report struct {
	Kind   string   `json:"kind"`   // a word such as "node-panic"
	Detail string   `json:"detail"` // the reason on the first line, then what led to it
	Files  []string `json:"files"`  // to be removed when the report stands on the ledger
}

// Reason is the first line.
func (r Report) Reason() string {
	line, _, _ := strings.Cut(r.Detail, "\n")
	return line
}

// The kernel's words for why it wrote its log away (kernel/printk), as kinds.
var kinds = map[string]string{
	"Panic":    "node-panic",
	"Oops":     "node-oops",
	"Shutdown": "node-stopped",
}

const (
	// together is how far the parts of one death may lie apart.
	together = time.Minute
	// keep bounds a report; the ledger takes 8 KiB, and what matters is short.
	keep = 4 << 10
)

// part is one file of the store: the kernel cuts its log in pieces, part 1 is
// the newest.
type part struct {
	file   string
	reason string // "Panic"
	death  string // "Panic#1": the first since that boot
	number int
	at     time.Time
	text   []byte
}

var head = regexp.MustCompile(`^(([A-Za-z]+)#\d+) Part(\d+)$`)

// Collect reads a store. Files that are no kernel log are left alone.
func Collect(dir string) ([]Report, error) {
	list, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("last words: %w", err)
	}
	var parts []part
	for _, e := range list {
		if !strings.HasPrefix(e.Name(), "dmesg-") {
			continue
		}
		p, err := read(filepath.Join(dir, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("last words: %w", err)
		}
		parts = append(parts, p)
	}
	// Deaths by age, and in each the oldest text first.
	slices.SortStableFunc(parts, func(a, b part) int {
		if a.death == b.death && a.at.Sub(b.at).Abs() < together {
			return b.number - a.number
		}
		return a.at.Compare(b.at)
	})
	var reports []Report
	for from := 0; from < len(parts); {
		to := from + 1
		for to < len(parts) && parts[to].death == parts[from].death && parts[to].number < parts[to-1].number && parts[to].at.Sub(parts[from].at).Abs() < together {
			to++
		}
		reports = append(reports, report(parts[from:to]))
		from = to
	}
	return reports, nil
}

func read(file string) (part, error) {
	info, err := os.Stat(file)
	if err != nil {
		return part{}, err
	}
	b, err := os.ReadFile(file)
	if err != nil {
		return part{}, err
	}
	p := part{file: file, at: info.ModTime(), text: b}
	line, rest, _ := bytes.Cut(b, []byte("\n"))
	if m := head.FindSubmatch(line); m != nil {
		// A number that no kernel writes makes it a part without one.
		if n, err := strconv.Atoi(string(m[3])); err == nil {
			p.death, p.reason, p.number, p.text = string(m[1]), string(m[2]), n, rest
		}
	}
	return p, nil
}

func report(parts []part) Report {
	r := Report{Kind: "node-crash", Files: []string{}}
	if k, ok := kinds[parts[0].reason]; ok {
		r.Kind = k
	}
	var text strings.Builder
	for _, p := range parts {
		r.Files = append(r.Files, p.file)
		text.Write(p.text)
		if !bytes.HasSuffix(p.text, []byte("\n")) {
			text.WriteByte('\n')
		}
	}
	lines := Lines(text.String())
	r.Detail = reason(lines) + "\n" + tail(lines, keep)
	return r
}

// Mark starts the line that init writes into the kernel's log when it stops
// the node itself.
const Mark = "zos: stopped: "

// signs are how lines begin that say why, the plainest first: init's own, those
// of Go's runtime when it ends init, the kernel's.
var signs = []string{Mark, "panic: ", "fatal error: ", "SIGQUIT: ", "Kernel panic - not syncing: ", "Oops: ", "BUG: ", "Out of memory: "}

func reason(lines []string) string {
	for _, sign := range signs {
		for _, l := range slices.Backward(lines) {
			if strings.HasPrefix(l, sign) {
				return strings.TrimPrefix(l, Mark)
			}
		}
	}
	return "the kernel's log does not say why"
}

// tail keeps whole lines from the end.
func tail(lines []string, limit int) string {
	from, size := len(lines), 0
	for from > 0 && size+len(lines[from-1])+1 <= limit {
		from--
		size += len(lines[from]) + 1
	}
	return strings.Join(lines[from:], "\n")
}

// stamp is what the kernel puts before a line: level and facility, then time.
var stamp = regexp.MustCompile(`^<(\d+)>\[ *\d+\.\d+\](?:\[[ A-Z0-9]+\])? ?`)

// program is what the driver ttyprintk puts before a line of a program.
const program = "[U] "

// Lines takes the kernel's stamps off. Without ttyprintk, Go's runtime writes its
// last words to the kernel's log in pieces shorter than a line; they are joined
// again.
func Lines(text string) []string {
	const user = 8 // facilities from here on are programs'
	var out []string
	joining := false
	for _, l := range strings.Split(strings.TrimRight(text, "\n"), "\n") {
		piece := false
		if m := stamp.FindStringSubmatch(l); m != nil {
			level, err := strconv.Atoi(m[1])
			piece = err == nil && level == user+defaultLevel
			l = strings.TrimPrefix(strings.ToValidUTF8(l[len(m[0]):], "?"), program)
		}
		if !piece {
			out, joining = append(out, l), false
			continue
		}
		if !joining || l == "" || strings.HasPrefix(l, "\t") || strings.HasPrefix(l, "goroutine ") {
			out = append(out, "")
		}
		out[len(out)-1] += l
		joining = true
	}
	return slices.DeleteFunc(out, func(l string) bool { return strings.TrimSpace(l) == "" })
}

// defaultLevel is the kernel's for a program's text without one.
const defaultLevel = 4

// Leave hands a report to the agent. A name that waits already is replaced:
// what happens again and again is told once, with the newest detail.
func Leave(dir, name string, r Report) error {
	if r.Files == nil {
		r.Files = []string{}
	}
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("last words: %w", err)
	}
	tmp := filepath.Join(dir, "."+name)
	if err := os.WriteFile(tmp, b, 0o600); err != nil {
		return fmt.Errorf("last words: %w", err)
	}
	if err := os.Rename(tmp, filepath.Join(dir, name+".json")); err != nil {
		return fmt.Errorf("last words: %w", err)
	}
	return nil
}
