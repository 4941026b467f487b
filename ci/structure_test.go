// SPDX-License-Identifier: Apache-2.0

package ci

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/zos-node/zos/"

// layers is design.md §3: a folder may import the folders that stand in its
// own line. What is not listed here does not exist.
var layers = map[string][]string{
	"spec":      {},
	"sign":      {"spec/strict"},
	"zimage":    {"spec/strict"},
	"ledger":    {"spec", "sign"},
	"agent":     {"spec", "sign", "ledger", "zimage", "guest/wire", "kernel/dm", "kernel/kmod", "kernel/partition"},
	"kernel":    {},
	"init":      {"kernel"},
	"guest":     {"kernel"},
	"boards":    {},
	"image":     {"kernel", "boards", "agent/seed", "spec/strict", "sign", "agent/pcrsig"},
	"qemu":      {"*"},
	"cmd":       {"*"},
	"ci":        {},
	"examples":  {"kernel"},
	"packaging": {},
}

// never lists packages that must not be linked into a program.
var never = map[string][]string{
	"agent":  {"github.com/cometbft/cometbft", "net/http/pprof", module + "ledger/bft"},
	"init":   {"github.com/cometbft/cometbft", "net/http", "crypto/tls", module + "spec", module + "sign", module + "ledger", module + "zimage", module + "agent"},
	"guest":  {"net/http", "crypto/tls", module + "spec", module + "sign", module + "ledger", module + "zimage", module + "agent"},
	"ledger": {"github.com/cometbft/cometbft"},
}

type pkg struct {
	ImportPath string
	Dir        string
	Imports    []string
	Deps       []string
	GoFiles    []string
}

func list(t *testing.T, args ...string) []pkg {
	t.Helper()
	cmd := exec.Command("go", append([]string{"list", "-json=ImportPath,Dir,Imports,Deps,GoFiles"}, args...)...)
	cmd.Dir = ".."
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list %v: %v\n%s", args, err, errs.String())
	}
	var all []pkg
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(p.ImportPath, module+"build/") { // what a build left behind
			all = append(all, p)
		}
	}
}

func within(path string, allowed []string) bool {
	return slices.ContainsFunc(allowed, func(a string) bool {
		return a == "*" || path == a || strings.HasPrefix(path, a+"/")
	})
}

func TestImportDirection(t *testing.T) {
	for _, p := range list(t, "./...") {
		rel := strings.TrimPrefix(p.ImportPath, module)
		top, _, _ := strings.Cut(rel, "/")
		allowed, known := layers[top]
		if !known {
			t.Errorf("%s: folder %q is not in the table of layers", rel, top)
		}
		for _, imp := range p.Imports {
			to, ours := strings.CutPrefix(imp, module)
			if ours && !within(to, append([]string{top}, allowed...)) {
				t.Errorf("%s imports %s: only %v may be imported from %s/", rel, to, allowed, top)
			}
		}
	}
}

func TestNeverLinked(t *testing.T) {
	for top, forbidden := range never {
		for _, p := range list(t, "./"+top) {
			for _, dep := range p.Deps {
				if within(dep, forbidden) {
					t.Errorf("%s links %s", top, dep)
				}
			}
		}
	}
}

func TestPackagesTeach(t *testing.T) {
	for _, p := range list(t, "./...") {
		doc := ""
		for _, name := range p.GoFiles {
			f, err := parser.ParseFile(token.NewFileSet(), filepath.Join(p.Dir, name), nil, parser.ParseComments|parser.PackageClauseOnly)
			if err != nil {
				t.Fatal(err)
			}
			doc += f.Doc.Text()
		}
		if len(p.GoFiles) > 0 && len(doc) < 80 {
			t.Errorf("%s has no package comment that teaches: %q", p.ImportPath, doc)
		}
	}
}

// TestFiles looks at every file that git knows: licence line and length.
func TestFiles(t *testing.T) {
	cmd := exec.Command("git", "ls-files", "-co", "--exclude-standard", "*.go", "*.sh", "*.yaml", "*.nft", "*.awk", "Makefile", ".ci/run")
	cmd.Dir = ".."
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	names := strings.Fields(string(out))
	if len(names) < 20 {
		t.Fatalf("git lists %d files only", len(names))
	}
	for _, name := range names {
		f, err := os.Open(filepath.Join("..", name))
		if errors.Is(err, os.ErrNotExist) {
			continue // deleted, not yet committed
		} else if err != nil {
			t.Fatal(err)
		}
		licence, lines := false, 0
		for scan := bufio.NewScanner(f); scan.Scan(); lines++ {
			if lines < 2 && strings.Contains(scan.Text(), "SPDX-License-Identifier: Apache-2.0") {
				licence = true
			}
		}
		f.Close()
		if !licence {
			t.Errorf("%s: its first line does not name the licence", name)
		}
		if lines > 500 && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s has %d lines: more than one concern?", name, lines)
		}
	}
}
