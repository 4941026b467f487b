// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"go/ast"
	"go/parser"
	"go/token"
	"reflect"
	"strconv"
	"strings"
	"testing"
)

// TestActedOn: of every type of entry that names the state it acts on, that
// state is found. A server that is behind would else refuse it for good, where it
// should ask to wait, and a node takes what was refused out of its queue.
func TestActedOn(t *testing.T) {
	found := 0
	for name, kind := range entryTypes(t) {
		p := payload(kind)
		if p == nil {
			continue // a deployment, which people sign
		}
		field := reflect.ValueOf(p).Elem().FieldByName("Acted")
		if field.IsValid() {
			field.Set(reflect.ValueOf(Acted{Size: 1000, Root: "ab"}))
			found++
		}
		e := &Entry{Type: kind, Payload: p}
		if a, ok := e.ActedOn(); ok != field.IsValid() || ok && a.Size != 1000 {
			t.Errorf("%s: acts on %+v, %t; want %t", name, a, ok, field.IsValid())
		}
		if got := NewState().Ahead(e); got != field.IsValid() {
			t.Errorf("%s: is ahead of an empty log: %t, want %t", name, got, field.IsValid())
		}
	}
	if found < 9 {
		t.Errorf("%d types of entry act on a state", found)
	}
}

// entryTypes are the constants of this package that name types of entries.
func entryTypes(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, file := range []string{"entry.go", "entry_update.go"} {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || len(spec.Values) != len(spec.Names) {
				return true
			}
			for i, name := range spec.Names {
				lit, ok := spec.Values[i].(*ast.BasicLit)
				if !ok || !strings.HasPrefix(name.Name, "Type") {
					continue
				}
				if all[name.Name], err = strconv.Unquote(lit.Value); err != nil {
					t.Fatal(err)
				}
			}
			return true
		})
	}
	if len(all) < 17 {
		t.Fatalf("found %d types of entries only: %v", len(all), all)
	}
	return all
}
