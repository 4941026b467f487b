// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
)

// submit signs an entry with the named keys and hands it to the ledger
// itself. It returns the index.
func (w *world) submit(payloadType string, payload []byte, keys ...string) int64 {
	w.t.Helper()
	env := &sign.Envelope{PayloadType: payloadType, Payload: payload}
	for _, k := range keys {
		if err := env.Add(w.keys[k]); err != nil {
			w.t.Fatal(err)
		}
	}
	raw, err := env.Encode()
	if err != nil {
		w.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.client.Sync(ctx); err != nil {
		w.t.Fatal(err)
	}
	r, err := w.client.Submit(ctx, raw)
	if err != nil {
		w.t.Fatal(err)
	}
	return r.Index
}

// stop ends a deployment on the ledger.
func (w *world) stop(id int64, name string) {
	w.t.Helper()
	b, err := json.Marshal(ledger.Stop{Deployment: id, Name: name, Reason: "the test is over"})
	if err != nil {
		w.t.Fatal(err)
	}
	w.submit(ledger.TypeStop, b, "author")
}

// until follows the ledger until the state is as wanted, and says what for
// when it is not.
func (w *world) until(ctx context.Context, what string, ok func(s *ledger.State) bool) {
	w.t.Helper()
	for {
		err := w.client.Sync(ctx)
		if err == nil && ok(w.client.State()) {
			return
		}
		select {
		case <-time.After(300 * time.Millisecond):
		case <-ctx.Done():
			w.t.Fatalf("the ledger does not show: %s (%v, %v)\n%s", what, err, ctx.Err(), w.story())
		}
	}
}

// story tells what the ledger holds, for a failed test.
func (w *world) story() string {
	s := w.client.State()
	var b strings.Builder
	for _, d := range s.Deployments() {
		fmt.Fprintf(&b, "deployment %d %s: %s\n", d.ID, d.Name, s.Status(d))
		for _, g := range s.Claims(d.ID) {
			for _, r := range s.Records(g.Index) {
				fmt.Fprintf(&b, "  claim %d %-18s %-7s %s %s\n", g.Index, r.Record.Phase, r.Record.Result, r.Record.Detail, r.Record.Error)
			}
			fmt.Fprintf(&b, "  claim %d: %s %s %s\n", g.Index, g.State, g.CloseResult, g.CloseReason)
		}
	}
	for _, i := range s.Incidents() {
		fmt.Fprintf(&b, "incident %s %s %s\n", i.Incident.Kind, i.Incident.Machine, i.Incident.Detail)
	}
	return b.String()
}

// running waits for a deployment to run and returns its claim.
func (w *world) running(ctx context.Context, id int64) *ledger.Grant {
	w.t.Helper()
	var g *ledger.Grant
	w.until(ctx, fmt.Sprintf("deployment %d runs", id), func(s *ledger.State) bool {
		d := s.Deployment(id)
		if s.Status(d) == ledger.Failed {
			w.t.Fatalf("the deployment failed\n%s", w.story())
		}
		for _, c := range s.Claims(id) {
			g = c
		}
		return s.Status(d) == ledger.Running
	})
	return g
}

// closed waits for the end of a deployment's claim.
func (w *world) closed(ctx context.Context, id int64, result string) *ledger.Grant {
	w.t.Helper()
	var g *ledger.Grant
	w.until(ctx, fmt.Sprintf("the claim of deployment %d is closed", id), func(s *ledger.State) bool {
		for _, c := range s.Claims(id) {
			g = c
		}
		return g != nil && g.Closed()
	})
	if g.CloseResult != result {
		w.t.Fatalf("closed as %q (%s), want %q\n%s", g.CloseResult, g.CloseReason, result, w.story())
	}
	return g
}

// failedIn returns the record of a claim that failed.
func (w *world) failedIn(g *ledger.Grant, phase string) *ledger.Record {
	w.t.Helper()
	for _, r := range w.client.State().Records(g.Index) {
		if r.Record.Result == "failed" {
			if r.Record.Phase != phase {
				w.t.Fatalf("failed in %s, want %s\n%s", r.Record.Phase, phase, w.story())
			}
			return r.Record
		}
	}
	w.t.Fatalf("no phase failed\n%s", w.story())
	return nil
}

// incidents of a kind.
func (w *world) incidents(kind string) []ledger.Reported {
	var all []ledger.Reported
	for _, i := range w.client.State().Incidents() {
		if i.Incident.Kind == kind {
			all = append(all, i)
		}
	}
	return all
}

// page fetches through a gateway.
func page(port int, path string) (string, error) {
	c := http.Client{Timeout: 10 * time.Second}
	r, err := c.Get(fmt.Sprintf("http://127.0.0.1:%d%s", port, path))
	if err != nil {
		return "", err
	}
	defer r.Body.Close()
	b := make([]byte, 4096)
	n, err := r.Body.Read(b)
	if n == 0 && err != nil {
		return "", err
	}
	if r.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s: %s", r.Status, b[:n])
	}
	return string(b[:n]), nil
}
