// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

func submitCommand(a *app) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "submit ENVELOPE",
		Short: "put a signed deployment (or stop, or trust root) on the ledger",
		Long: `Submit an envelope and print the receipt: its index in the log, given only when
the entry can no longer be lost. Submitting the same again gives the same
index. With --root the policy is checked before, and afterwards that the log
really has the entry there; a refusal then counts only when the log, as it was
checked here, refuses the entry too, or every --ledger does: else the next is asked.

Exit codes: 0 on the ledger, 3 refused, 4 file not found, 5 ledger not reached.`,
		Example: `  zos submit shop.envelope --ledger http://127.0.0.1:8470 --root root.json
  zos submit shop.envelope --json | jq .index`,
		Args: exactly(1, "the envelope to submit"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFile(args[0], "an envelope", ledger.MaxEntry+1)
			if err != nil {
				return fileError(err)
			}
			return a.submit(cmd.Context(), f, bytes.TrimSpace(b), args[0])
		},
	}
	f.add(cmd)
	return cmd
}

// receipt is what submit and stop print.
type receipt struct {
	ledger.Receipt
	Digest   string `json:"digest"`   // of the payload
	Verified bool   `json:"verified"` // the log was seen to have it, by proof
}

func (a *app) submit(ctx context.Context, f ledgerFlags, raw []byte, what string) error {
	entry, err := ledger.Decode(raw)
	if err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", what, err))
	}
	if err := f.server(); err != nil {
		return err
	}
	r := receipt{Digest: spec.Digest(entry.Envelope.Payload)}
	if f.root == "" {
		fmt.Fprintln(a.err, "note: without --root the policy is not checked here, and the receipt is not verified")
		r.Receipt, err = a.submitUnverified(ctx, f, raw)
	} else {
		r.Receipt, err = a.submitVerified(ctx, f, entry)
		r.Verified = err == nil
	}
	if err != nil {
		return err
	}
	return a.print(r, func(w io.Writer) {
		since := ""
		if r.TimeMs > 0 {
			since = ", since " + clock(r.TimeMs)
		}
		fmt.Fprintf(w, "%s is entry %d of the ledger%s\n", harmless(what), r.Index, since)
		if r.Verified {
			fmt.Fprintf(w, "the log was checked to have it there (size %d)\n", r.Size)
		}
	})
}

func (a *app) submitUnverified(ctx context.Context, f ledgerFlags, raw []byte) (ledger.Receipt, error) {
	var takers []ledger.Taker
	for _, url := range f.ledgers {
		takers = append(takers, ledger.Taker{URL: url, Submit: func(ctx context.Context, entry []byte) (ledger.Receipt, error) {
			return ledger.Submit(ctx, url, nil, entry)
		}})
	}
	r, err := ledger.SubmitTo(ctx, takers, raw, nil)
	return r, ledgerError(err)
}

func (a *app) submitVerified(ctx context.Context, f ledgerFlags, entry *ledger.Entry) (ledger.Receipt, error) {
	c, err := a.sync(ctx, f)
	if err != nil {
		return ledger.Receipt{}, err
	}
	var refused *ledger.Refused
	err = c.State().Check(time.Now().UnixMilli(), entry.Raw)
	if err != nil && (!errors.As(err, &refused) || refused.Index < 0) {
		return ledger.Receipt{}, coded(exitRefused, fmt.Errorf("would be refused, nothing was submitted: %w", err))
	}
	r, err := c.Submit(ctx, entry.Raw)
	if err != nil {
		return r, ledgerError(err)
	}
	if err := c.Sync(ctx); err != nil {
		return r, ledgerError(err)
	}
	if r.Proof == "" { // it stood there before
		r.Size = c.Checkpoint().N
	}
	if at, ok := c.State().Indexed(entry); !ok || at != r.Index {
		return r, coded(exitRefused, fmt.Errorf("the server gave a receipt for index %d, but the log that it publishes does not have the entry there: do not rely on it", r.Index))
	}
	return r, nil
}

func stopCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var keys []string
	var reason string
	cmd := &cobra.Command{
		Use:   "stop DEPLOYMENT --key KEY",
		Short: "end a deployment: sign a stop and put it on the ledger",
		Long: `Sign a stop for a deployment, by name or log index, with the keys of the roles
that the trust root demands for a stop, and submit it. The nodes take the
deployment down and close their claims; zos status shows when they have.
Where the keys are with several people, write {"deployment":INDEX,"name":"NAME",
"reason":"WHY"} with the index that zos status shows; each signs in turn (zos sign
--type stop), and the last one submits the envelope (zos submit).

Exit codes: 0 on the ledger, 3 refused, 4 no such deployment, 5 not reached.`,
		Example: `  zos stop shop --key ~/.ssh/id_ed25519 --root root.json --reason "end of sale"`,
		Args:    exactly(1, "the deployment to stop"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stop(cmd.Context(), f, args[0], keys, reason)
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "private key that signs (or .pub of a key in ssh-agent); repeat for each")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who read the ledger")
	given(cmd, "key")
	return cmd
}

func (a *app) stop(ctx context.Context, f ledgerFlags, deployment string, keys []string, reason string) error {
	if err := f.server(); err != nil {
		return err
	}
	c, err := a.sync(ctx, f)
	if err != nil {
		return err
	}
	d, err := findDeployment(c.State(), deployment)
	if err != nil {
		return err
	}
	body, err := strict.Encode(ledger.Stop{Deployment: d.ID, Name: d.Name, Reason: reason})
	if err != nil {
		return fmt.Errorf("encode the stop: %w", err)
	}
	raw, err := a.signAll(ledger.TypeStop, body, keys)
	if err != nil {
		return err
	}
	return a.submit(ctx, f, raw, fmt.Sprintf("stop of %s (entry %d)", d.Name, d.ID))
}

func revokeCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var keys []string
	var reason string
	var compromised bool
	cmd := &cobra.Command{
		Use:   "revoke KEY.pub --key ROOTKEY",
		Short: "take a key out of use, from now on",
		Long: `Revoke the key of a person, a voucher or a node. Its place in the log counts:
what the key signed before stays valid, and what it signs later counts for
nothing. With --compromised what runs because of it ends too: deployments that
it signed are stopped, leases of a node with it go to others. Keys of the root
role are taken out by the next trust root instead.

Exit codes: 0 on the ledger, 3 refused, 4 no such file, 5 not reached.`,
		Example: `  zos ledger revoke bob.pub --key ~/.ssh/root --root root.json --reason "bob left"`,
		Args:    exactly(1, "the public key file"),
		RunE: func(cmd *cobra.Command, args []string) error {
			b, err := readFile(args[0], "a public key", maxKeyFile)
			if err != nil {
				return fileError(fmt.Errorf("key: %w", err))
			}
			key, err := sign.ParsePublicKeyFile(b)
			if err != nil {
				return coded(exitRefused, fmt.Errorf("%s: %w", args[0], err))
			}
			body, err := strict.Encode(ledger.Revoke{Key: key, Compromised: compromised, Reason: reason})
			if err != nil {
				return fmt.Errorf("encode the revocation: %w", err)
			}
			raw, err := a.signAll(ledger.TypeRevoke, body, keys)
			if err != nil {
				return err
			}
			return a.submit(cmd.Context(), f, raw, "revocation of "+args[0])
		},
	}
	f.add(cmd)
	cmd.Flags().StringArrayVar(&keys, "key", nil, "private key of the root role (or .pub of a key in ssh-agent); repeat for each")
	cmd.Flags().StringVar(&reason, "reason", "", "why, for those who read the ledger")
	cmd.Flags().BoolVar(&compromised, "compromised", false, "somebody else has the key: end what runs because of it")
	given(cmd, "key")
	return cmd
}

// signAll makes an envelope with one signature of each key.
func (a *app) signAll(payloadType string, body []byte, keys []string) ([]byte, error) {
	env := sign.Envelope{PayloadType: payloadType, Payload: body}
	for _, path := range keys {
		s, err := a.signer(path)
		if err != nil {
			return nil, fileError(err)
		}
		if err := env.Add(s); err != nil {
			return nil, coded(exitRefused, err)
		}
	}
	return env.Encode()
}
