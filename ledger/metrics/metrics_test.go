// SPDX-License-Identifier: Apache-2.0

package metrics

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
)

type answers struct{ err error }

func (a *answers) Submit(context.Context, []byte) (ledger.Receipt, error) {
	return ledger.Receipt{}, a.err
}
func (a *answers) Health() error { return nil }

func TestSubmissionsAreCounted(t *testing.T) {
	set := New([]Value{{"entries", "Entries.", func() float64 { return 7 }}})
	a := &answers{}
	s := set.Submitter(a)
	for _, err := range []error{nil, nil, &ledger.Refused{}, &ledger.Busy{}, &ledger.Busy{Quota: true}, errors.New("x")} {
		a.err = err
		if _, got := s.Submit(t.Context(), nil); got != err {
			t.Errorf("the answer became %v", got)
		}
	}
	w := httptest.NewRecorder()
	set.Handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	b, err := io.ReadAll(w.Body)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"zos_ledger_entries 7", `_count{result="ok"} 2`, `_count{result="refused"} 1`, `_count{result="busy"} 1`, `_count{result="quota"} 1`, `_count{result="failed"} 1`, "process_resident_memory_bytes"} {
		if !strings.Contains(string(b), want) {
			t.Errorf("no %s in:\n%s", want, b)
		}
	}
}

// TestDashboard holds that the dashboard asks for metrics that there are, and
// for each of those that docs/ledger.md says to be woken for.
func TestDashboard(t *testing.T) {
	b, err := os.ReadFile(filepath.Join("..", "..", "packaging", "grafana", "ledger.json"))
	if err != nil {
		t.Fatal(err)
	}
	if !json.Valid(b) {
		t.Fatal("the dashboard is no JSON")
	}
	var code strings.Builder
	for _, f := range []string{"metrics.go", "../bft/values.go"} {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		code.Write(text)
	}
	asked := regexp.MustCompile(`zos_ledger_([a-z_]+)`).FindAllStringSubmatch(string(b), -1)
	if len(asked) < 6 {
		t.Fatalf("the dashboard asks for %d metrics only", len(asked))
	}
	for _, m := range asked {
		name := strings.TrimSuffix(strings.TrimSuffix(m[1], "_bucket"), "_count")
		if !strings.Contains(code.String(), `"`+name+`"`) && !strings.Contains(code.String(), `"zos_ledger_`+name+`"`) {
			t.Errorf("the dashboard asks for %s, which nobody has", m[0])
		}
	}
	var dashboard struct {
		Panels []struct{ Targets []struct{ Expr string } }
	}
	if err := json.Unmarshal(b, &dashboard); err != nil {
		t.Fatal(err)
	}
	shown := map[string]bool{}
	name := regexp.MustCompile(`zos_ledger_[a-z_]+`)
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			for _, m := range name.FindAllString(target.Expr, -1) {
				shown[m] = true
			}
		}
	}
	page, err := os.ReadFile(filepath.Join("..", "..", "docs", "ledger.md"))
	if err != nil {
		t.Fatal(err)
	}
	_, woken, _ := strings.Cut(string(page), "\n## Being woken\n")
	woken, _, _ = strings.Cut(woken, "\n## ")
	rows := regexp.MustCompile("(?m)^\\| `(zos_ledger_[a-z_]+)").FindAllStringSubmatch(woken, -1)
	if len(rows) < 8 {
		t.Fatalf("the table under \"Being woken\" has %d metrics only", len(rows))
	}
	for _, m := range rows {
		if !shown[m[1]] {
			t.Errorf("docs/ledger.md says to be woken for %s, and no panel of the dashboard shows it", m[1])
		}
	}
}
