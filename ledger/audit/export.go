// SPDX-License-Identifier: Apache-2.0

package audit

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/sign"
)

// An export is the story of a deployment as in-toto statements, each in a DSSE
// envelope that the auditor's Ed25519 key signs: plain signatures over the PAE,
// as in-toto's and sigstore's tools verify them. The subject is always the
// signed spec. The auditor only vouches for having looked: each statement
// carries the ledger's entry with its own signatures, and the C2SP tlog-proof
// that it is in the log, so that nobody has to believe the auditor either.
const (
	statementType = "https://in-toto.io/Statement/v1"
	// PredicateEntry is the predicate of a statement about one entry: Item,
	// with the entry's bytes and the proof that the log has it.
	PredicateEntry = "https://github.com/zos-node/zos/audit/entry/v1"
	// PredicateReport is the predicate of the one statement about all of it:
	// Report.
	PredicateReport = "https://github.com/zos-node/zos/audit/report/v1"
	payloadType     = "application/vnd.in-toto+json"
)

type statement struct {
	Type          string    `json:"_type"`
	Subject       []subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     any       `json:"predicate"`
}

type subject struct {
	Name   string            `json:"name"`
	Digest map[string]string `json:"digest"`
}

// entryPredicate is what PredicateEntry holds.
type entryPredicate struct {
	Origin string `json:"origin"`
	Item
	Entry []byte `json:"entry"` // the DSSE envelope in the log
	Proof string `json:"proof"` // C2SP tlog-proof
}

type envelope struct {
	PayloadType string      `json:"payloadType"`
	Payload     string      `json:"payload"`
	Signatures  []signature `json:"signatures"`
}

type signature struct {
	// KeyID is a hint, and every tool makes its own of a key; a wrong one makes
	// it look no further. So it is empty.
	KeyID string `json:"keyid"`
	Sig   string `json:"sig"`
}

// Export writes a report into a folder, which it makes: report.json, one
// NNNNNNNN-kind.json for each entry of the story, and auditor.pem, the public
// key. It returns how many statements there are.
func (r *Report) Export(dir string, key ed25519.PrivateKey) (n int, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "auditor.pem"), pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}), 0o644); err != nil {
		return 0, fmt.Errorf("export: %w", err)
	}
	write := func(name, digest, predicateType string, predicate any) error {
		body, err := json.Marshal(statement{statementType, []subject{{r.Story.Name, map[string]string{"sha256": strings.TrimPrefix(digest, "sha256:")}}}, predicateType, predicate})
		if err != nil {
			return fmt.Errorf("export %s: %w", name, err)
		}
		sig := ed25519.Sign(key, sign.PAE(payloadType, body))
		b, err := json.Marshal(envelope{payloadType, base64.StdEncoding.EncodeToString(body), []signature{{"", base64.StdEncoding.EncodeToString(sig)}}})
		if err != nil {
			return fmt.Errorf("export %s: %w", name, err)
		}
		n++
		if err := os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644); err != nil {
			return fmt.Errorf("export: %w", err)
		}
		return nil
	}
	newest := ""
	of := map[int64]string{} // claim or deployment to the spec's digest
	for _, it := range r.Story.Items {
		switch it.Kind {
		case "register":
			newest = it.Digest
			of[it.Index] = it.Digest
		case "claim":
			of[it.Index] = r.claimed[it.Index]
		}
		digest := of[it.Claim]
		if digest == "" {
			digest = newest
		}
		p := entryPredicate{r.Origin, it, it.entry.Raw, r.proof[it.Index]}
		if err := write(fmt.Sprintf("%08d-%s.json", it.Index, it.Kind), digest, PredicateEntry, p); err != nil {
			return n, err
		}
	}
	return n, write("report.json", newest, PredicateReport, r)
}
