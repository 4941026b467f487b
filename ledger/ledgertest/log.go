// SPDX-License-Identifier: Apache-2.0

// Package ledgertest makes small real ledgers for tests: real keys, real
// signatures, real tiles and checkpoints in a temporary folder, ordered by a
// function call instead of an engine, with a clock that the test moves.
package ledgertest

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"maps"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"

	"log/slog"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// Epoch is the ledger time at which a Log begins: behind any day on which tests run,
// since some of what they test has this computer's clock, by which no lease may be
// over and no block due.
const Epoch = 2_500_000_000_000

// Log is a ledger. Its policy: a deployment needs author 1 of 1 and security
// 2 of 2, a stop the author, a voucher the operator, a release of the node's
// software the role "release".
type Log struct {
	t       testing.TB
	Dir     string // the static files
	Root    ledger.Root
	RootEnv []byte
	Keys    map[string]sign.Signer // "root", "author", "security1", "security2", "operator", "release", "voucher"
	// VoucherKey is the private key file of Keys["voucher"], which is the key of
	// every voucher of this log.
	VoucherKey []byte
	ReleaseKey []byte   // private key file of Keys["release"]
	Leaves     [][]byte // all entries

	mu      sync.Mutex
	nowMs   int64
	height  int64
	state   *ledger.State
	writer  *tiles.Writer
	signers tiles.Signers
}

// Key makes a key.
func Key(t testing.TB) sign.Signer {
	t.Helper()
	s, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// New makes a ledger with a root of trust and nothing else.
func New(t testing.TB) *Log {
	t.Helper()
	l := &Log{t: t, Dir: t.TempDir(), Keys: map[string]sign.Signer{}, nowMs: Epoch, state: ledger.NewState()}
	for _, k := range []string{"root", "author", "security1", "security2", "operator"} {
		l.Keys[k] = Key(t)
	}
	var err error
	if l.Keys["voucher"], l.VoucherKey, err = sign.GenerateSigner(); err != nil {
		t.Fatal(err)
	}
	if l.Keys["release"], l.ReleaseKey, err = sign.GenerateSigner(); err != nil {
		t.Fatal(err)
	}
	l.Root = ledger.Root{Version: 1, Policy: sign.Policy{Roles: map[string]sign.Role{
		"root": l.role(1, "root"), "author": l.role(1, "author"), "security": l.role(2, "security1", "security2"), "operator": l.role(1, "operator"), "release": l.role(1, "release"),
	}}, Require: map[string][]string{"root": {"root"}, "deployment": {"author", "security"}, "stop": {"author"}, "voucher": {"operator"}, "release": {"release"}},
		Lease: ledger.LeasePolicy{WindowMs: 10_000, LeaseMs: 60_000, GraceMs: 30_000}}
	l.Root.Log, l.signers = Signers(t, "test.example/log")
	l.RootEnv = l.Sign(ledger.TypeRoot, l.Root, "root")
	l.writer = tiles.NewWriter(tiles.Dir(l.Dir))
	if err := l.writer.WriteRoot(1, l.RootEnv); err != nil {
		t.Fatal(err)
	}
	l.Must(l.RootEnv)
	return l
}

// Signers makes the keys of a log.
func Signers(t testing.TB, origin string) (ledger.LogPolicy, tiles.Signers) {
	t.Helper()
	logKey, logV, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		t.Fatal(err)
	}
	valKey, valV, err := note.GenerateKey(rand.Reader, origin+"/validator")
	if err != nil {
		t.Fatal(err)
	}
	cosigner, err := tiles.CosignerKey(valV)
	if err != nil {
		t.Fatal(err)
	}
	s, err := tiles.NewSigners(logKey, valKey)
	if err != nil {
		t.Fatal(err)
	}
	consensus, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return ledger.LogPolicy{Origin: origin, Quorum: 1, Validators: []ledger.Validator{
		{Name: "validator", Log: logV, Cosigner: cosigner, Consensus: base64.StdEncoding.EncodeToString(consensus)},
	}}, s
}

func (l *Log) role(threshold int64, keys ...string) sign.Role {
	r := sign.Role{Threshold: threshold}
	for _, k := range keys {
		r.Keys = append(r.Keys, l.Keys[k].PublicKey())
	}
	return r
}

// Role makes a role of named keys.
func (l *Log) Role(threshold int64, keys ...string) sign.Role { return l.role(threshold, keys...) }

// Envelope signs a payload (bytes are taken as they are) with named keys.
func (l *Log) Envelope(payloadType string, payload any, keys ...string) sign.Envelope {
	l.t.Helper()
	body, ok := payload.([]byte)
	if !ok {
		var err error
		if body, err = strict.Encode(payload); err != nil {
			l.t.Fatal(err)
		}
	}
	env := sign.Envelope{PayloadType: payloadType, Payload: body}
	for _, k := range keys {
		if err := env.Add(l.Keys[k]); err != nil {
			l.t.Fatal(err)
		}
	}
	return env
}

// Sign is Envelope, encoded.
func (l *Log) Sign(payloadType string, payload any, keys ...string) []byte {
	l.t.Helper()
	env := l.Envelope(payloadType, payload, keys...)
	b, err := env.Encode()
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// Pass moves the clock on by ms milliseconds.
func (l *Log) Pass(ms int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.nowMs += ms
}

// NowMs is the clock.
func (l *Log) NowMs() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.nowMs
}

// Block applies entries as one block and publishes it.
func (l *Log) Block(entries ...[]byte) ledger.Outcome {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block(entries)
}

func (l *Log) block(entries [][]byte) ledger.Outcome {
	l.t.Helper()
	out := l.state.Apply(l.height, l.nowMs, entries)
	if len(out.Leaves) == 0 {
		return out
	}
	l.height++
	for _, leaf := range out.Leaves {
		l.Leaves = append(l.Leaves, slices.Clone(leaf))
	}
	err := l.writer.Append(out.Leaves)
	for v := l.Root.Version; err == nil && l.state.RootEnvelope(v) != nil; v++ {
		err = l.writer.WriteRoot(v, l.state.RootEnvelope(v))
	}
	if err == nil {
		err = l.publish()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return out
}

// publish signs and writes the checkpoint of all that the writer has.
func (l *Log) publish() error {
	tree := l.writer.Head()
	signed, err := l.signers.Sign(l.Root.Log.Origin, tree)
	if err != nil {
		return err
	}
	return l.writer.Publish(tree.N, signed)
}

// Must applies entries, each of which has to be accepted, and returns the
// index of the last.
func (l *Log) Must(entries ...[]byte) int64 {
	l.t.Helper()
	out := l.Block(entries...)
	for i := range entries {
		if err := out.Refused[i]; err != nil {
			l.t.Fatalf("entry %d was refused: %v", i, err)
		}
	}
	return out.Indexes[len(entries)-1]
}

// Refuse applies one entry, which has to be refused, and returns why.
func (l *Log) Refuse(entry []byte) string {
	l.t.Helper()
	err := l.Block(entry).Refused[0]
	if err == nil {
		l.t.Fatalf("entry was accepted")
	}
	return err.Error()
}

// State is a copy of the present state.
func (l *Log) State() *ledger.State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Clone()
}

// Acted is the present state for an entry that acts on it.
func (l *Log) Acted() ledger.Acted {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state.Acted()
}

// Checkpoint signs any tree with the log's own keys, for lies.
func (l *Log) Checkpoint(t tlog.Tree) []byte {
	l.t.Helper()
	b, err := l.signers.Sign(l.Root.Log.Origin, t)
	if err != nil {
		l.t.Fatal(err)
	}
	return b
}

// SignBy has other keys sign every checkpoint from now on: those of the next
// root's validators, or, for lies, those that it voted out.
func (l *Log) SignBy(s tiles.Signers) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signers = s
}

// Client opens a client of the given ledgers that trusts this log's root.
func (l *Log) Client(stateFile string, ledgers ...string) *ledger.Client {
	l.t.Helper()
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: l.RootEnv, Ledgers: ledgers, StateFile: stateFile})
	if err != nil {
		l.t.Fatal(err)
	}
	return c
}

// Submit implements ledger.Submitter.
func (l *Log) Submit(_ context.Context, raw []byte) (ledger.Receipt, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if e, err := ledger.Decode(raw); err == nil {
		if i, ok := l.state.Indexed(e); ok {
			return ledger.Receipt{Index: i, Size: l.state.Size(), TimeMs: l.state.TimeMs()}, nil
		}
	}
	out := l.block([][]byte{raw})
	return ledger.Receipt{Index: out.Indexes[0], Size: l.state.Size(), TimeMs: l.state.TimeMs()}, out.Refused[0]
}

// Health implements ledger.Submitter.
func (l *Log) Health() error { return nil }

// Handler serves the log like a real server.
func (l *Log) Handler() http.Handler {
	return ledger.Handler(tiles.Dir(l.Dir), l, slog.New(slog.DiscardHandler))
}

// Serve serves the log until the test ends and returns the base URL.
func (l *Log) Serve() string {
	s := httptest.NewServer(l.Handler())
	l.t.Cleanup(s.Close)
	return s.URL
}

// Voucher is a signed voucher.
func (l *Log) Voucher(id string, uses int64, labels map[string]string) sign.Envelope {
	l.t.Helper()
	return l.Envelope(ledger.TypeVoucher, ledger.Voucher{ID: id, Uses: uses, Key: l.Keys["voucher"].PublicKey(), Labels: maps.Clone(labels)}, "operator")
}

// ExpiringVoucher is a signed voucher that ends.
func (l *Log) ExpiringVoucher(id string, uses, expiresMs int64) sign.Envelope {
	l.t.Helper()
	return l.Envelope(ledger.TypeExpiringVoucher, ledger.ExpiringVoucher{ID: id, Uses: uses, Key: l.Keys["voucher"].PublicKey(), ExpiresMs: expiresMs}, "operator")
}

// SignAt has checkpoints signed by another clock than this computer's from now on,
// the newest one at once.
func (l *Log) SignAt(now func() time.Time) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.signers = l.signers.At(now)
	if err := l.publish(); err != nil {
		l.t.Fatal(err)
	}
}

// Fork is a second ledger with the same keys and the same history so far, as
// a dishonest operator can make it. What is done to one does not show in the
// other.
func (l *Log) Fork() *Log {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	f := &Log{
		t: l.t, Dir: l.t.TempDir(), Root: l.Root, RootEnv: l.RootEnv, Keys: l.Keys, VoucherKey: l.VoucherKey, Leaves: slices.Clone(l.Leaves),
		nowMs: l.nowMs, height: l.height, state: l.state.Clone(), signers: l.signers,
	}
	f.writer = tiles.NewWriter(tiles.Dir(f.Dir))
	err := f.writer.WriteRoot(1, f.RootEnv)
	if err == nil {
		err = f.writer.Append(f.Leaves)
	}
	if err == nil {
		err = f.publish()
	}
	if err != nil {
		l.t.Fatal(err)
	}
	return f
}

// Snapshot publishes a snapshot of the present state, altered by edit if that
// is not nil.
func (l *Log) Snapshot(edit func([]byte) []byte) {
	l.t.Helper()
	b := l.State().Snapshot()
	if edit != nil {
		b = edit(b)
	}
	if err := tiles.WriteFileSync(filepath.Join(l.Dir, "snapshot"), b, 0o644); err != nil {
		l.t.Fatal(err)
	}
}

// Smuggle publishes leaves that Apply never saw, under right signatures.
func (l *Log) Smuggle(leaves ...[]byte) {
	l.t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	if err := l.writer.Append(leaves); err != nil {
		l.t.Fatal(err)
	}
	if err := l.publish(); err != nil {
		l.t.Fatal(err)
	}
}
