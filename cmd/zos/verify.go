// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
)

// report is what can be said of an envelope.
type report struct {
	PayloadType string     `json:"payloadType"`
	Digest      string     `json:"digest"` // of the payload
	Bytes       int        `json:"bytes"`
	Name        string     `json:"name"`    // of a deployment, else ""
	Version     int64      `json:"version"` // of a deployment, else 0
	Signatures  []signedBy `json:"signatures"`
	Policy      *policy    `json:"policy"` // null: no trust root was given
}

type signedBy struct {
	KeyID     string   `json:"keyid"`
	PublicKey string   `json:"publicKey"`
	Roles     []string `json:"roles"` // in which the trust root lists the key
}

type policy struct {
	Root  int64    `json:"root"` // version
	Met   bool     `json:"met"`
	Why   string   `json:"why"` // not met, else ""
	Roles []filled `json:"roles"`
}

type filled struct {
	Role string   `json:"role"`
	Have int      `json:"have"`
	Want int64    `json:"want"`
	Keys []string `json:"keys"` // fingerprints
}

// examine checks every signature, and with a root the policy.
func examine(env *sign.Envelope, root *ledger.Root) (report, error) {
	keys, err := env.Keys()
	if err != nil {
		return report{}, err
	}
	r := report{PayloadType: env.PayloadType, Digest: spec.Digest(env.Payload), Bytes: len(env.Payload), Signatures: []signedBy{}}
	var more []string
	if env.PayloadType == spec.PayloadType {
		d, err := spec.Decode(env.Payload)
		if err != nil {
			return report{}, err
		}
		r.Name, r.Version, more = d.Metadata.Name, d.Metadata.Version, d.Security.RequiredRoles
	}
	for _, k := range keys {
		id, err := sign.Fingerprint(k)
		if err != nil {
			return report{}, err
		}
		s := signedBy{KeyID: id, PublicKey: k, Roles: []string{}}
		if root != nil {
			for name, role := range root.Policy.Roles {
				if slices.Contains(role.Keys, k) {
					s.Roles = append(s.Roles, name)
				}
			}
			slices.Sort(s.Roles)
		}
		r.Signatures = append(r.Signatures, s)
	}
	if root != nil {
		r.Policy, err = judge(root, documentKind(env.PayloadType), keys, more)
	}
	return r, err
}

// judge says which roles are filled.
func judge(root *ledger.Root, kind string, keys, more []string) (*policy, error) {
	p := &policy{Root: root.Version, Met: true, Roles: []filled{}}
	byRole, err := root.Fill(kind, keys, more)
	if err != nil {
		p.Met, p.Why = false, err.Error()
		if short := new(sign.PolicyError); !errors.As(err, &short) {
			return p, nil // there is no policy to fill for this kind
		}
	}
	required := slices.Concat(root.Require[kind], more)
	slices.Sort(required)
	for _, role := range slices.Compact(required) {
		f := filled{Role: role, Have: len(byRole[role]), Want: root.Policy.Roles[role].Threshold, Keys: []string{}}
		for _, k := range byRole[role] {
			id, err := sign.Fingerprint(k)
			if err != nil {
				return nil, err
			}
			f.Keys = append(f.Keys, id)
		}
		p.Roles = append(p.Roles, f)
	}
	return p, nil
}

// write shows the report to people.
func (r report) write(w io.Writer, path string) {
	fmt.Fprintf(w, "%s\n", harmless(path))
	what := documentKind(r.PayloadType)
	if r.Name != "" {
		what = fmt.Sprintf("%s %s, version %d", what, r.Name, r.Version)
	}
	fmt.Fprintf(w, "  document  %s\n  digest    %s  (%d bytes)\n", what, r.Digest, r.Bytes)
	if len(r.Signatures) == 0 {
		fmt.Fprintf(w, "  signed by nobody\n")
	}
	for i, s := range r.Signatures {
		head := ""
		if i == 0 {
			head = "signed by"
		}
		kind, _, _ := strings.Cut(s.PublicKey, " ")
		in := ""
		if r.Policy != nil {
			in = "  in no role"
			if len(s.Roles) > 0 {
				in = "  in " + strings.Join(s.Roles, ", ")
			}
		}
		fmt.Fprintf(w, "  %-9s %s  %s%s\n", head, s.KeyID, kind, in)
	}
	if r.Policy == nil {
		fmt.Fprintf(w, "  policy    not checked: no trust root was given (--root)\n")
		return
	}
	for _, f := range r.Policy.Roles {
		state := "filled"
		if int64(f.Have) < f.Want {
			state = "MISSING"
		}
		fmt.Fprintf(w, "  role      %-12s %d of %d  %s\n", f.Role, f.Have, f.Want, state)
	}
	verdict := "met"
	if !r.Policy.Met {
		verdict = "NOT met: " + strings.TrimPrefix(r.Policy.Why, "policy not met: ")
	}
	fmt.Fprintf(w, "  policy    of root version %d: %s\n", r.Policy.Root, verdict)
}

func verifyCommand(a *app) *cobra.Command {
	var rootPath string
	cmd := &cobra.Command{
		Use:   "verify ENVELOPE",
		Short: "check every signature of an envelope, and whether the policy is met",
		Long: `Check the payload and every signature of an envelope: who signed, with which
key, and with --root which roles of the trust root are filled or missing. One
bad signature refuses the whole envelope. Distinct public keys are counted; one
key fills one role unless the trust root says otherwise.

Exit codes: 0 all is well, 3 refused or policy not met, 4 file not found.`,
		Example: `  zos verify shop.envelope --root root.json
  zos verify shop.envelope --root root.json --json | jq .policy`,
		Args: exactly(1, "the envelope to verify"),
		RunE: func(_ *cobra.Command, args []string) error { return a.verify(args[0], rootPath) },
	}
	cmd.Flags().StringVar(&rootPath, "root", os.Getenv("ZOS_ROOT"), "trust root envelope (ZOS_ROOT)")
	return cmd
}

func (a *app) verify(path, rootPath string) error {
	b, err := readFile(path, "an envelope", sign.MaxEnvelope+1)
	if err != nil {
		return fileError(err)
	}
	b = bytes.TrimSpace(b) // as zos submit does
	env, err := sign.DecodeEnvelope(b)
	if err != nil {
		var doc map[string]json.RawMessage
		if jerr := json.Unmarshal(b, &doc); jerr == nil && doc["payload"] == nil && doc["signatures"] == nil {
			return coded(exitRefused, fmt.Errorf("%s is no envelope, but a document that nobody has signed: zos sign makes an envelope of it, zos check looks at a specification", path))
		}
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	if same, err := env.Encode(); err != nil || !bytes.Equal(same, b) {
		return coded(exitRefused, fmt.Errorf("%s: the envelope is not in its canonical form (fields in order, no white space), and the ledger would refuse it: the signatures may be right, but zos sign writes no such file", path))
	}
	if err := checkPayload(env); err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	var root *ledger.Root
	if rootPath != "" {
		if root, err = trustRoot(rootPath); err != nil {
			return err
		}
	}
	r, err := examine(env, root)
	if err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	if err := a.print(r, func(w io.Writer) { r.write(w, path) }); err != nil {
		return err
	}
	if r.Policy != nil && !r.Policy.Met {
		return coded(exitRefused, fmt.Errorf("%s: %s", path, r.Policy.Why))
	}
	return nil
}
