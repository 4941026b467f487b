// SPDX-License-Identifier: Apache-2.0

package tiles

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"strconv"
	"strings"

	fnote "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"golang.org/x/mod/sumdb/tlog"
)

// MaxCheckpoint bounds a checkpoint with all its signatures.
const MaxCheckpoint = 16 << 10

// Policy says which checkpoints are to be believed: signed by the log's key,
// and by at least Quorum distinct cosigners (cosignature/v1).
type Policy struct {
	Origin    string
	Key       string   // vkey of the log
	Cosigners []string // vkeys of the cosigners
	Quorum    int
}

// Checkpoint is one that a Policy accepted.
type Checkpoint struct {
	tlog.Tree
	Cosigners []string // names of those that signed, in the note's order
	TimeSec   int64    // newest cosignature's time, Unix seconds
	Note      []byte   // the signed note
}

// verifiers parses the policy's keys.
func (p Policy) verifiers() (log note.Verifier, cosigners []note.Verifier, err error) {
	if p.Origin == "" || strings.ContainsAny(p.Origin, "\n+ \t\r") {
		return nil, nil, fmt.Errorf("origin %q is empty or has a space, plus or line break", p.Origin)
	}
	log, err = note.NewVerifier(p.Key)
	if err != nil {
		return nil, nil, fmt.Errorf("log key %q: %w", p.Key, err)
	}
	if log.Name() != p.Origin {
		return nil, nil, fmt.Errorf("log key has name %q, want the origin %q", log.Name(), p.Origin)
	}
	seen := map[string]bool{}
	for _, vkey := range p.Cosigners {
		v, err := fnote.NewVerifierForCosignatureV1(vkey)
		if err != nil {
			return nil, nil, fmt.Errorf("cosigner key %q: %w", vkey, err)
		}
		// The same key under two names would count twice, so the key itself is compared.
		parts := strings.SplitN(vkey, "+", 3)
		raw, err := base64.StdEncoding.DecodeString(parts[len(parts)-1])
		if err != nil || len(raw) < 2 || seen[string(raw[1:])] {
			return nil, nil, fmt.Errorf("cosigner key %q is there twice or malformed", vkey)
		}
		seen[string(raw[1:])] = true
		cosigners = append(cosigners, v)
	}
	if p.Quorum < 1 || p.Quorum > len(cosigners) {
		return nil, nil, fmt.Errorf("quorum is %d, want 1 to %d, the number of cosigners", p.Quorum, len(cosigners))
	}
	return log, cosigners, nil
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
	log, cosigners, err := p.verifiers()
	if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint policy: %w", err)
	}
	n, err := note.Open(msg, note.VerifierList(append([]note.Verifier{log}, cosigners...)...))
	var unsigned *note.UnverifiedNoteError
	if errors.As(err, &unsigned) {
		return Checkpoint{}, errors.New("checkpoint has no signature of a known key")
	} else if err != nil {
		return Checkpoint{}, fmt.Errorf("checkpoint: %w", err)
	}
	if !bytes.Equal(spell(n), msg) {
		return Checkpoint{}, errors.New("checkpoint is not in its canonical spelling")
	}
	tree, err := parseTree(p.Origin, n.Text)
	if err != nil {
		return Checkpoint{}, err
	}
	cp := Checkpoint{Tree: tree, Note: bytes.Clone(msg)}
	signed := false
	names := map[uint32]bool{}
	for _, s := range n.Sigs {
		if s.Name == log.Name() && s.Hash == log.KeyHash() {
			signed = true
			continue
		}
		names[s.Hash] = true
		cp.Cosigners = append(cp.Cosigners, s.Name)
		at, err := fnote.CoSigV1Timestamp(s)
		if err != nil {
			return Checkpoint{}, fmt.Errorf("cosignature of %s: %w", s.Name, err)
		}
		cp.TimeSec = max(cp.TimeSec, at.Unix())
	}
	if !signed {
		return Checkpoint{}, fmt.Errorf("checkpoint is not signed by the log key of %s", p.Origin)
	}
	if len(names) < p.Quorum {
		return Checkpoint{}, fmt.Errorf("checkpoint has %d of %d cosignatures", len(names), p.Quorum)
	}
	return cp, nil
}

// spell writes an opened note in its one form. note.Open keeps the order of
// verified and unverified signatures apart, so unknown ones must come last.
func spell(n *note.Note) []byte {
	var b bytes.Buffer
	b.WriteString(n.Text + "\n")
	for _, s := range append(append([]note.Signature{}, n.Sigs...), n.UnverifiedSigs...) {
		raw, err := base64.StdEncoding.DecodeString(s.Base64)
		if err != nil {
			return nil
		}
		b.WriteString("— " + s.Name + " " + base64.StdEncoding.EncodeToString(raw) + "\n")
	}
	return b.Bytes()
}

// text is the signed text of a checkpoint.
func text(origin string, t tlog.Tree) string {
	return origin + "\n" + strconv.FormatInt(t.N, 10) + "\n" + t.Hash.String() + "\n"
}

func parseTree(origin, s string) (tlog.Tree, error) {
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
	cosigner, err := fnote.NewSignerForCosignatureV1(strings.TrimSpace(cosignerKey))
	if err != nil {
		return Signers{}, fmt.Errorf("validator key: %w", err)
	}
	return Signers{log, cosigner}, nil
}

// Sign makes the signed note of a tree.
func (s Signers) Sign(origin string, t tlog.Tree) ([]byte, error) {
	b, err := note.Sign(&note.Note{Text: text(origin, t)}, s.Log, s.Cosigner)
	if err != nil {
		return nil, fmt.Errorf("sign checkpoint: %w", err)
	}
	return b, nil
}

// CosignerKey is the vkey to put into a policy for a plain ed25519 note key.
func CosignerKey(vkey string) (string, error) {
	k, err := fnote.VKeyToCosignatureV1(vkey)
	if err != nil {
		return "", fmt.Errorf("cosigner key: %w", err)
	}
	return k, nil
}
