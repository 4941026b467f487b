// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/crypto/ssh"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/audit"
)

func auditCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var export, key string
	cmd := &cobra.Command{
		Use:   "audit DEPLOYMENT --ledger URL|DIR",
		Short: "replay the ledger and check every signature, proof and record of a deployment",
		Long: `Replay the whole log from its first entry and check one deployment, by name
(all versions) or log index: the checkpoint's signatures, every tile and entry,
every rule, a proof for each entry of the deployment, every signature, the chain
and number of its records, their order, and that the digests which the nodes
recorded are those of the signed spec. Works on a copy of the log without any
network.

It tells under which policy people agreed to each version, update and stop: the
version of the trust root in force, how many each role needs, who filled it, and
whose signatures do not count and why; and of each claim why its node was allowed
then: its rank among the eligible nodes, and the window.

Silence is found as well: a claim that was closed although no record says that it
ran or what failed, one that was renewed for longer than its next phase may take
without a record, one that was renewed after the deployment was stopped or
replaced, and a lease that ran out without a close.

An old copy of a log fits as well: until when the log goes and when its validators
signed it is said, with a warning where it stands still by this clock. --max-age
refuses one that is older.

--export writes the story as in-toto statements in DSSE envelopes, signed by the
Ed25519 key of --export-key, with a proof for each entry; the tools of in-toto
and sigstore verify them with auditor.pem.

Exit codes: 0 everything fits, 3 something does not, or the log is too old for
--max-age, 4 no such deployment, 5 ledger not reached.`,
		Example: `  zos audit shop --ledger ./ledger --root root.json
  zos audit shop --ledger ./ledger --root root.json --export ./shop-audit --export-key ~/.ssh/auditor
  zos audit shop --ledger http://127.0.0.1:8470 --root root.json --json | jq .discrepancies`,
		Args: exactly(1, "the deployment"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.audit(cmd.Context(), f, args[0], export, key) },
	}
	f.add(cmd)
	f.addMaxAge(cmd)
	cmd.Flags().StringVar(&export, "export", "", "folder to write in-toto statements to")
	cmd.Flags().StringVar(&key, "export-key", "", "Ed25519 private key that signs them (OpenSSH or PEM file)")
	return cmd
}

func (a *app) audit(ctx context.Context, f ledgerFlags, deployment, export, keyPath string) error {
	var key ed25519.PrivateKey
	if export != "" {
		var err error
		if key, err = exportKey(keyPath); err != nil {
			return err
		}
	}
	root, err := f.rootEnvelope()
	if err != nil {
		return err
	}
	if len(f.ledgers) != 1 {
		return coded(exitUsage, fmt.Errorf("audit looks at one ledger at a time, --ledger names %d", len(f.ledgers)))
	}
	if err := f.there(); err != nil {
		return err
	}
	// What stands in the flags and files is checked before the ledger is asked.
	if _, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: f.ledgers, StateFile: f.state}); err != nil {
		return coded(exitRefused, err)
	}
	r, err := audit.Run(ctx, audit.Config{Root: root, Ledger: f.ledgers[0], Deployment: deployment, StateFile: f.state, MaxAge: f.maxAge, Progress: a.entriesDone("audit")})
	if err != nil {
		return auditError(f.tooOld(err))
	}
	if err := a.print(r, func(w io.Writer) { writeReport(w, r) }); err != nil {
		return err
	}
	if export != "" {
		// Also, and above all, when something does not fit.
		n, err := r.Export(export, key)
		if err != nil {
			return err
		}
		fmt.Fprintf(a.err, "%d in-toto statements are in %s\n", n, export)
	}
	if !r.OK() {
		return coded(exitRefused, fmt.Errorf("%d discrepancies in the story of %s", len(r.Discrepancies), r.Story.Name))
	}
	return nil
}

// exportKey reads an Ed25519 key from an OpenSSH or PEM file.
func exportKey(path string) (ed25519.PrivateKey, error) {
	if path == "" {
		return nil, coded(exitUsage, errors.New("--export needs --export-key, which signs the statements"))
	}
	b, err := readFile(path, "a key", maxKeyFile)
	if err != nil {
		return nil, fileError(fmt.Errorf("key: %w", err))
	}
	raw, err := ssh.ParseRawPrivateKey(b)
	if err != nil {
		return nil, coded(exitRefused, fmt.Errorf("key %s: %w", path, err))
	}
	switch k := raw.(type) {
	case *ed25519.PrivateKey:
		return *k, nil
	case ed25519.PrivateKey:
		return k, nil
	}
	return nil, coded(exitRefused, fmt.Errorf("key %s: is a %T, want Ed25519", path, raw))
}

func writeReport(w io.Writer, r *audit.Report) {
	log := seenLog{r.Origin, r.Size, r.TimeMs, r.SignedMs, r.Frozen}
	fmt.Fprintf(w, "%s: %s%s\n", r.Story.Name, r.Story.Status, log.asOf())
	fmt.Fprintf(w, "  log         %s\n  root hash   %s\n", log.until(), r.Root)
	log.warn(w)
	fmt.Fprintf(w, "  cosigned by %s\n", strings.Join(r.Cosigners, ", "))
	fmt.Fprintf(w, "  replayed    %d entries, %d files computed again\n", r.Entries, r.Files)
	fmt.Fprintf(w, "  deployment  %d entries with %d signatures and %d proofs, %d records\n", len(r.Story.Items), r.Signatures, r.Proofs, r.Records)
	for _, it := range r.Story.Items {
		for _, p := range it.Policies {
			fmt.Fprintf(w, "  entry %-5d %s, %s\n", it.Index, it.Kind, harmless(p.String()))
		}
		for _, s := range it.Signers {
			if s.Not != "" {
				fmt.Fprintf(w, "  entry %-5d the signature of %s does not count: %s\n", it.Index, s.Key, s.Not)
			}
		}
	}
	for _, c := range r.Claims {
		state := c.State
		switch {
		case c.State == ledger.GrantReleased:
			state = "given back"
		case c.Result != "":
			state = "closed: " + c.Result
		}
		fmt.Fprintf(w, "  claim %-5d node %s, %s, %d records, plan %s\n", c.Claim, c.Name, state, c.Records, short(c.Plan, 19, false))
		if c.Turn != nil {
			fmt.Fprintf(w, "  claim %-5d %s\n", c.Claim, turn(c.Turn))
		}
	}
	for _, c := range r.Claims {
		if len(c.Missing) > 0 {
			fmt.Fprintf(w, "  claim %-5d has no record of %s\n", c.Claim, strings.Join(c.Missing, ", "))
		}
	}
	for _, d := range r.Discrepancies {
		fmt.Fprintf(w, "  WRONG       %s\n", harmless(d))
	}
	if r.OK() {
		fmt.Fprintf(w, "  everything fits%s\n", log.asOf())
	}
}
