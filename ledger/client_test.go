// SPDX-License-Identifier: Apache-2.0

package ledger_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb/tlog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest"
)

// liar serves a log, but alters what answer says.
func liar(t *testing.T, l *ledgertest.Log, answer func(path string, body []byte) (int, []byte)) string {
	t.Helper()
	real := l.Handler()
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := httptest.NewRecorder()
		real.ServeHTTP(rec, r)
		status, body := answer(r.URL.Path, rec.Body.Bytes())
		if status == 0 {
			status = rec.Code
		}
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		if _, err := w.Write(body); err != nil {
			t.Logf("client went away: %v", err)
		}
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// only alters the files whose path begins so.
func only(prefix string, f func([]byte) []byte) func(string, []byte) (int, []byte) {
	return func(path string, body []byte) (int, []byte) {
		if strings.HasPrefix(path, prefix) {
			return 0, f(body)
		}
		return 0, body
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		c := bytes.Clone(b)
		if at < 0 {
			at += len(c)
		}
		c[at] ^= 1
		return c
	}
}

func TestClientRefusesLies(t *testing.T) {
	l := ledgertest.New(t)
	l.Must(l.Register("a", 1, nil))
	l.Join("n", 1024)
	before := l.State()
	old := l.Fork()
	fork := l.Fork()
	fork.Must(fork.Register("evil", 1, nil))
	fork.Must(fork.Register("evil2", 1, nil))
	fork.Must(fork.Register("evil3", 1, nil))
	same := l.Fork()
	same.Must(same.Register("evil", 1, nil))
	same.Must(same.Register("evil2", 1, nil))
	unlawful := l.Fork()
	unlawful.Smuggle(l.Sign(ledger.TypeDeployment, l.Spec("unsigned", 1, nil), "author"),
		l.Sign(ledger.TypeBlock, ledger.Block{Height: 50, TimeMs: ledgertest.Epoch, StateRoot: before.StateRoot()}))
	inBlock := l.Fork()
	inBlock.Smuggle(l.Register("half", 1, nil))
	stranger := ledgertest.New(t)
	for i := range 12 {
		stranger.Must(stranger.Register("s"+fmt.Sprint(i), 1, nil))
	}
	short := l.Fork()
	l.Must(l.Register("b", 1, nil))
	l.Must(l.Register("c", 1, nil))
	good := l.Serve()
	signature := func(n int, f func(string) string) func([]byte) []byte {
		return func(b []byte) []byte {
			lines := strings.SplitAfter(string(b), "\n")
			lines[4+n] = f(lines[4+n])
			return []byte(strings.Join(lines, ""))
		}
	}
	drop := func(string) string { return "" }
	whole := func(l *ledgertest.Log) string { return l.Serve() }

	tests := []struct {
		name string
		url  string
		want error
		says string
	}{
		{"other keys", liar(t, l, func(path string, b []byte) (int, []byte) {
			if path == "/checkpoint" {
				s := l.State()
				return 0, stranger.Checkpoint(tlog.Tree{N: s.Size(), Hash: hash(t, s.RootHash())})
			}
			return 0, b
		}), ledger.ErrForged, "no signature of a known key"},
		{"log signature altered", liar(t, l, only("/checkpoint", signature(0, func(s string) string { return s[:60] + "AAAA" + s[64:] }))), ledger.ErrForged, "invalid signature"},
		{"log signature missing", liar(t, l, only("/checkpoint", signature(0, drop))), ledger.ErrForged, "not signed by a log key"},
		{"cosignature altered", liar(t, l, only("/checkpoint", signature(1, func(s string) string { return s[:90] + "AAAA" + s[94:] }))), ledger.ErrForged, "invalid signature"},
		{"cosignature missing", liar(t, l, only("/checkpoint", signature(1, drop))), ledger.ErrForged, "0 of 1 cosignatures"},
		{"size altered", liar(t, l, only("/checkpoint", func(b []byte) []byte { return bytes.Replace(b, []byte("\n1"), []byte("\n2"), 1) })), ledger.ErrForged, "invalid signature"},
		{"other origin", whole(stranger), ledger.ErrForged, "no signature of a known key"},
		{"oversize checkpoint", liar(t, l, only("/checkpoint", func(b []byte) []byte { return append(b, bytes.Repeat([]byte("x"), 1<<20)...) })), ledger.ErrForged, "more than the 16384 bytes"},
		{"rolled back", whole(short), ledger.ErrRollback, "were there before"},
		{"forked", whole(fork), ledger.ErrFork, "another root hash at size"},
		{"forked, of the same size", whole(same), ledger.ErrFork, "another root hash at size"},
		{"tile altered", liar(t, l, only("/tile/0", flip(40))), ledger.ErrForged, "inconsistent tile"},
		{"tile cut", liar(t, l, only("/tile/0", func(b []byte) []byte { return b[:len(b)-1] })), ledger.ErrForged, "TileReader"},
		{"tile too long", liar(t, l, only("/tile/0", func(b []byte) []byte { return append(b, 0) })), ledger.ErrForged, "TileReader"},
		{"oversize tile", liar(t, l, only("/tile/0", func(b []byte) []byte { return append(b, make([]byte, 10_000)...) })), ledger.ErrForged, "more than the 8192 bytes"},
		{"entry altered", liar(t, l, only("/tile/entries", flip(-20))), ledger.ErrForged, "is not the one that the checkpoint covers"},
		{"bundle cut", liar(t, l, only("/tile/entries", func(b []byte) []byte { return b[:len(b)-1] })), ledger.ErrForged, "bundle ends inside entry"},
		{"bundle too long", liar(t, l, only("/tile/entries", func(b []byte) []byte { return append(b, 0) })), ledger.ErrForged, "bytes too many"},
		{"entry that the rules forbid", whole(unlawful), ledger.ErrForged, "should not have entered the ledger"},
		{"log ends inside a block", whole(inBlock), ledger.ErrForged, "ends inside a block"},
		{"forged root of trust", liar(t, l, func(path string, b []byte) (int, []byte) {
			if path == "/root/2.json" {
				next := l.Root
				next.Version = 2
				return 200, l.Sign(ledger.TypeRoot, next, "operator")
			}
			return 0, b
		}), ledger.ErrForged, "do not satisfy root version 1"},
		{"redirect", liar(t, l, func(path string, b []byte) (int, []byte) { return http.StatusFound, b }), ledger.ErrUnreachable, "HTTP status 302"},
		{"server error", liar(t, l, func(path string, b []byte) (int, []byte) { return 500, b }), ledger.ErrUnreachable, "HTTP status 500"},
		{"nobody there", unheard(t), ledger.ErrUnreachable, "connection refused"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "state")
			prepare := l.Client(file, old.Serve())
			if err := prepare.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
			if tt.want == ledger.ErrRollback || tt.want == ledger.ErrFork {
				// These two only show to one who has seen more.
				prepare = l.Client(file, good)
				if err := prepare.Sync(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			remembered, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var refused []error
			c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{tt.url}, StateFile: file})
			if err != nil {
				t.Fatal(err)
			}
			for range 2 {
				err := c.Sync(t.Context())
				if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.says) {
					t.Fatalf("Sync says %v, want %v with %q", err, tt.want, tt.says)
				}
			}
			if c.State().Size() != 0 || c.Checkpoint().N != 0 {
				t.Errorf("state advanced to %d", c.State().Size())
			}
			if now, err := os.ReadFile(file); err != nil || !bytes.Equal(now, remembered) {
				t.Errorf("state file changed (%v)", err)
			}
			c, err = ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{tt.url, good}, StateFile: file,
				OnRefused: func(_ string, err error) { refused = append(refused, err) }})
			if err != nil {
				t.Fatal(err)
			}
			if err := c.Sync(t.Context()); err != nil {
				t.Fatalf("with an honest one beside: %v", err)
			}
			if len(refused) != 1 || !errors.Is(refused[0], tt.want) {
				t.Errorf("reported: %v", refused)
			}
			if c.State().StateRoot() != l.State().StateRoot() || before.StateRoot() == c.State().StateRoot() {
				t.Error("state is another one than the ledger's")
			}
		})
	}
}

func hash(t *testing.T, s string) tlog.Hash {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return tlog.Hash(b)
}

// A client that follows a live ledger sees the fork although it was honest up to
// the point where the client stood.
func TestClientFollows(t *testing.T) {
	l := ledgertest.New(t)
	at := ""
	honest, forked := l.Handler(), http.Handler(nil)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if at == "fork" {
			forked.ServeHTTP(w, r)
			return
		}
		honest.ServeHTTP(w, r)
	}))
	defer s.Close()
	c := l.Client("", s.URL)
	fork := l.Fork()
	fork.Must(fork.Register("evil", 1, nil))
	for i := range 30 { // past one full tile
		var block [][]byte
		for j := range 10 {
			block = append(block, l.Register(fmt.Sprintf("d%d-%d", i, j), 1, nil))
		}
		l.Must(block...)
		if i%5 == 0 {
			if err := c.Sync(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if c.State().Size() != 332 || len(c.State().Deployments()) != 300 {
		t.Fatalf("size %d, %d deployments", c.State().Size(), len(c.State().Deployments()))
	}
	raw, err := c.Entries().Get(t.Context(), 300)
	if err != nil || !bytes.Equal(raw, l.Leaves[300]) {
		t.Errorf("entry 300: %v", err)
	}
	proof, err := c.Entries().Prove(t.Context(), 300)
	if err != nil || proof.Check(raw) != nil {
		t.Errorf("proof of entry 300: %v, %v", err, proof.Check(raw))
	}
	if err := proof.Check(l.Leaves[299]); !errors.Is(err, ledger.ErrForged) {
		t.Errorf("proof of another entry: %v", err)
	}
	older := c.Checkpoint().Tree
	l.Must(l.Register("one-more", 1, nil))
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := c.Entries().Consistent(t.Context(), older); err != nil {
		t.Errorf("consistency: %v", err)
	}
	older.Hash[0] ^= 1
	if err := c.Entries().Consistent(t.Context(), older); !errors.Is(err, ledger.ErrFork) {
		t.Errorf("consistency with another history: %v", err)
	}
	// A local folder serves as well, also one with but the widest partial tiles.
	d := l.Client("", l.Dir)
	if err := d.Sync(t.Context()); err != nil || d.State().StateRoot() != c.State().StateRoot() {
		t.Errorf("from a folder: %v", err)
	}
	var block [][]byte
	for i := range 400 {
		block = append(block, fork.Register(fmt.Sprintf("e%d", i), 1, nil))
	}
	fork.Must(block...)
	at, forked = "fork", fork.Handler()
	size := c.State().Size()
	if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrFork) || c.State().Size() != size {
		t.Errorf("fork: %v, size %d", err, c.State().Size())
	}
}

func TestClientSubmits(t *testing.T) {
	l := ledgertest.New(t)
	c := l.Client("", unheard(t), l.Serve())
	e := l.Register("shop", 1, nil)
	first, err := c.Submit(t.Context(), e)
	if err != nil || first.Index != 2 || first.Size != 4 {
		t.Fatalf("receipt %+v, %v", first, err)
	}
	again, err := c.Submit(t.Context(), e)
	if err != nil || again.Index != first.Index {
		t.Errorf("again: %+v, %v", again, err)
	}
	_, err = c.Submit(t.Context(), l.Register("shop", 3, nil))
	var refused *ledger.Refused
	if !errors.As(err, &refused) || refused.Field != "payload.metadata.version" || !strings.Contains(refused.Reason, "want 2") {
		t.Errorf("refusal is %v", err)
	}
	_, err = c.Submit(t.Context(), []byte(strings.Repeat("x", ledger.MaxEntry+1)))
	if !errors.As(err, &refused) || !strings.Contains(refused.Reason, "65535") {
		t.Errorf("too large: %v", err)
	}
	_, err = c.Submit(t.Context(), []byte("{}"))
	if !errors.As(err, &refused) {
		t.Errorf("no envelope: %v", err)
	}
}

func TestServerServesOnlyTheLog(t *testing.T) {
	l := ledgertest.New(t)
	if err := os.WriteFile(filepath.Join(l.Dir, "secret"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	url := l.Serve()
	for path, want := range map[string]int{
		"/checkpoint": 200, "/tile/0/000.p/2": 200, "/tile/0/000.p/1": 200, "/tile/0/000.p/3": 404, "/tile/0/000": 404, "/tile/entries/000.p/2": 200,
		"/root/1.json": 200, "/root/2.json": 404, "/secret": 404, "/": 404, "/tile/../secret": 404, "/%2e%2e/etc/passwd": 404, "/healthz": 200, "/tile/0/0.p/2": 404,
	} {
		resp, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%s: status %d, want %d", path, resp.StatusCode, want)
		}
	}
}

func TestStateFileIsGuarded(t *testing.T) {
	l := ledgertest.New(t)
	file := filepath.Join(t.TempDir(), "state")
	if err := l.Client(file, l.Dir).Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for name, bad := range map[string][]byte{"cut": b[:len(b)/2], "empty": {}, "altered": bytes.Replace(b, []byte(`"checkpoint":"`), []byte(`"checkpoint":"AAAA`), 1)} {
		if err := os.WriteFile(file, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: []string{l.Dir}, StateFile: file})
		if err == nil || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestClientOfAnotherRoot(t *testing.T) {
	l, other := ledgertest.New(t), ledgertest.New(t)
	// Same checkpoint keys, another policy: such a root was never on this log.
	root := l.Root
	root.Policy = other.Root.Policy
	env := other.Sign(ledger.TypeRoot, root, "root")
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: env, Ledgers: []string{l.Dir}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || !strings.Contains(err.Error(), "not the trusted one") {
		t.Errorf("Sync says %v", err)
	}
	if _, err := ledger.OpenClient(ledger.ClientConfig{Root: l.Sign(ledger.TypeRoot, root, "root"), Ledgers: []string{l.Dir}}); err == nil {
		t.Error("a root that its own role did not sign was taken")
	}
}

// unheard is an address at which nobody listens any more.
func unheard(t *testing.T) string {
	t.Helper()
	s := httptest.NewServer(http.NotFoundHandler())
	defer s.Close()
	return s.URL
}
