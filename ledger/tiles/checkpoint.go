// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a checkpoint with all its signatures.
const MaxCheckpoint = 16 << 10

// Policy says which checkpoints are to be believed: signed by a key of the
// log, and by at least Quorum distinct cosigners (cosignature/v1). Each
// validator has a log key of its own, all under the origin's name, so that no
// secret is ever shared; the log's signature says whose log it is, and the
// cosignatures say that it is so.
type Policy struct {
	Origin    string
	Keys      []string // vkeys of the log
	Cosigners []string // vkeys of the cosigners
	Quorum    int
}

// Checkpoint is one that a Policy accepted.
type Checkpoint struct {
	tlog.Tree
	Cosigners []string // names of those that signed, in the note's order
	TimeSec   int64    // newest cosignature's time, Unix seconds
	FreshSec  int64    // since when Quorum of them signed it: by then enough knew of nothing newer
	Note      []byte   // the signed note
}

// verifiers parses the policy's keys.
func (p Policy) verifiers() (logs, cosigners []note.Verifier, err error) {
	if p.Origin == "" || strings.ContainsAny(p.Origin, "\n+ \t\r") {
		return nil, nil, fmt.Errorf("origin %q is empty or has a space, plus or line break", p.Origin)
	}
	if len(p.Keys) == 0 {
		return nil, nil, errors.New("log has no key")
	}
	for _, key := range p.Keys {
		log, err := note.NewVerifier(key)
		if err != nil {
			return nil, nil, fmt.Errorf("log key %q: %w", key, err)
		}
		if log.Name() != p.Origin {
			return nil, nil, fmt.Errorf("log key has name %q, want the origin %q", log.Name(), p.Origin)
		}
		logs = append(logs, log)
	}
	seen := map[string]bool{}
	for _, vkey := range p.Cosigners {
		v, err := newCosignatureKey(vkey, keyCosignature)
		if err != nil {
			return nil, nil, fmt.Errorf("cosigner key %q: %w", vkey, err)
		}
		// The same key under two names would count twice, so the key itself is compared.
		if seen[string(v.key)] {
			return nil, nil, fmt.Errorf("cosigner key %q is there twice", vkey)
		}
		seen[string(v.key)] = true
		cosigners = append(cosigners, v)
	}
	if p.Quorum < 1 || p.Quorum > len(cosigners) {
		return nil, nil, fmt.Errorf("quorum is %d, want 1 to %d, the number of cosigners", p.Quorum, len(cosigners))
	}
	return logs, cosigners, nil
}

// Validate checks the policy itself.
func (p Policy) Validate() error {
	_, _, err := p.verifiers()
	return err
}

// Open accepts a signed checkpoint or says why not. It also refuses other
// spellings of a valid one, so that a changed byte never goes unseen.
func (p Policy) Open(msg []byte) (Checkpoint, error) {
	if len(msg) > MaxCheckpoint {
		return Checkpoint{}, fmt.Errorf("checkpoint has %d bytes, at most %d are allowed", len(msg), MaxCheckpoint)
	}
	logs, cosigners, err := p.verifiers()
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint policy: %w", err)
	}
	n, err := note.Open(msg, note.VerifierList(slices.Concat(logs, cosigners)...))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return Checkpoint{}, errors.New("checkpoint has no signature of a known key")
	} else if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	if !spelled(n.Text, msg) {
		return Checkpoint{}, errors.New("checkpoint is not in its canonical spelling")
	}
	tree, err := ParseTree(p.Origin, n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	cp := Checkpoint{Tree: tree, Note: bytes.Clone(msg)}
	signed := false
	names := map[uint32]bool{}
	var times []int64
	for _, s := range n.Sigs {
		if slices.ContainsFunc(logs, func(v note.Verifier) bool { return s.Name == v.Name() && s.Hash == v.KeyHash() }) {
			signed = true
			continue
		}
		names[s.Hash] = true
		cp.Cosigners = append(cp.Cosigners, s.Name)
		at, err := cosignedAt(s)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("cosignature of %s: %w", s.Name, err)
		}
		times = append(times, at)
	}
	if !signed {
		return Checkpoint{}, fmt.Errorf("checkpoint is not signed by a log key of %s", p.Origin)
	}
	if len(names) < p.Quorum {
		return Checkpoint{}, fmt.Errorf("checkpoint has %d of %d cosignatures", len(names), p.Quorum)
	}
	slices.Sort(times)
	cp.TimeSec, cp.FreshSec = times[len(times)-1], times[len(times)-p.Quorum]
	return cp, nil
}

// spelled says whether a note that note.Open took is in its one spelling:
// below its text nothing but signatures, each key once. Base64 has other ways
// to write the same bytes, and note.Open drops what stands there twice.
func spelled(text string, msg []byte) bool {
	sigs, ok := strings.CutPrefix(string(msg), text+"\n")
	if !ok {
		return false
	}
	seen := map[string]bool{}
	for _, line := range strings.SplitAfter(strings.TrimSuffix(sigs, "\n"), "\n") {
		name, sig, ok := strings.Cut(strings.TrimSuffix(strings.TrimPrefix(line, "— "), "\n"), " ")
		raw, err := base64.StdEncoding.Strict().DecodeString(sig)
		if !ok || err != nil || len(raw) < 5 || base64.StdEncoding.EncodeToString(raw) != sig || seen[name+string(raw[:4])] {
			return false
		}
		seen[name+string(raw[:4])] = true
	}
	return true
}

// text is the signed text of a checkpoint.
func text(origin string, t tlog.Tree) string {
	return origin + "\n" + strconv.FormatInt(t.N, 10) + "\n" + t.Hash.String() + "\n"
}

// ParseTree reads the text of a checkpoint: origin, size, root hash.
func ParseTree(origin, s string) (tlog.Tree, error) {
	lines := strings.SplitN(s, "\n", 4)
	if len(lines) != 4 || lines[3] != "" {
		return tlog.Tree{}, errors.New("checkpoint has not the three lines origin, size and root hash")
	}
	if lines[0] != origin {
		return tlog.Tree{}, fmt.Errorf("checkpoint has origin %q, want %q", lines[0], origin)
	}
	n, err := strconv.ParseInt(lines[1], 10, 64)
	if err != nil || n < 0 {
		return tlog.Tree{}, fmt.Errorf("checkpoint has size %q", lines[1])
	}
	h, err := tlog.ParseHash(lines[2])
	if err != nil {
		return tlog.Tree{}, fmt.Errorf("checkpoint has root hash %q", lines[2])
	}
	t := tlog.Tree{N: n, Hash: h}
	if text(origin, t) != s {
		return tlog.Tree{}, errors.New("checkpoint is not in its canonical spelling")
	}
	return t, nil
}

// Signers make checkpoints: the log's key and one cosigner's.
type Signers struct {
	Log      note.Signer
	Cosigner note.Signer
}

// NewSigners parses note signer keys ("PRIVATE+KEY+…").
func NewSigners(logKey, cosignerKey string) (Signers, error) {
	log, err := note.NewSigner(strings.TrimSpace(logKey))
	if err != nil {
		return Signers{}, fmt.Errorf("log key: %w", err)
	}
	cosigner, err := newCosigner(strings.TrimSpace(cosignerKey))
	if err != nil {
		return Signers{}, fmt.Errorf("validator key: %w", err)
	}
	return Signers{log, cosigner}, nil
}

// At returns the same signers with another clock, for tests.
func (s Signers) At(now func() time.Time) Signers {
	if c, ok := s.Cosigner.(*cosigner); ok {
		other := *c
		other.now = now
		s.Cosigner = &other
	}
	return s
}

// Sign makes the signed note of a tree.
func (s Signers) Sign(origin string, t tlog.Tree) ([]byte, error) {
	b, err := note.Sign(&note.Note{Text: text(origin, t)}, s.Log, s.Cosigner)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// Lines are the signatures of a tree alone, one signed line each, as others
// need them to put a checkpoint together.
func (s Signers) Lines(origin string, t tlog.Tree) ([]string, error) {
	b, err := s.Sign(origin, t)
	if err != nil {
		return nil, err
	}
	return Lines(b), nil
}

// Lines are the signature lines of a signed checkpoint.
func Lines(signed []byte) []string {
	_, sigs, _ := strings.Cut(string(signed), "\n\n")
	return strings.Split(strings.TrimSuffix(sigs, "\n"), "\n")
}

// Merge puts a checkpoint together from signature lines of any origin: those
// that are valid under the policy, each key once, in the policy's order. It
// returns the names of the cosigners that are in it; whether they are enough
// is for Open to say, or for Complete.
func (p Policy) Merge(t tlog.Tree, lines []string) (signed []byte, cosigners []string, err error) {
	signed, _, cosigners, err = p.merge(t, lines)
	return signed, cosigners, err
}

// Complete is Merge for a checkpoint that Open accepts: it refuses one that has
// too few signatures. It verifies each of them once.
func (p Policy) Complete(t tlog.Tree, lines []string) ([]byte, error) {
	signed, logs, cosigners, err := p.merge(t, lines)
	switch {
	case err != nil:
		return nil, err
	case logs == 0:
		return nil, fmt.Errorf("checkpoint is not signed by a log key of %s", p.Origin)
	case len(cosigners) < p.Quorum:
		return nil, fmt.Errorf("checkpoint has %d of %d cosignatures", len(cosigners), p.Quorum)
	case len(signed) > MaxCheckpoint:
		return nil, fmt.Errorf("checkpoint has %d bytes, at most %d are allowed", len(signed), MaxCheckpoint)
	}
	return signed, nil
}

func (p Policy) merge(t tlog.Tree, lines []string) (signed []byte, byLogs int, cosigners []string, err error) {
	logs, cos, err := p.verifiers()
	if err != nil {
		return nil, 0, nil, fmt.Errorf("checkpoint policy: %w", err)
	}
	body := text(p.Origin, t) + "\n"
	signed = []byte(body)
	for i, v := range slices.Concat(logs, cos) {
		for _, line := range lines {
			if !strings.HasPrefix(line, "— "+v.Name()+" ") || len(line) > maxLine {
				continue
			}
			one := []byte(body + line + "\n")
			if n, err := note.Open(one, note.VerifierList(v)); err != nil || !spelled(n.Text, one) {
				continue
			}
			signed = append(signed, line+"\n"...)
			if i >= len(logs) {
				cosigners = append(cosigners, v.Name())
			} else {
				byLogs++
			}
			break
		}
	}
	return signed, byLogs, cosigners, nil
}

// maxLine bounds one signature line.
const maxLine = 1 << 10
