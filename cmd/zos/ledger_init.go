// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/bft"
	"github.com/zos-node/zos/sign"
)

// initOptions are the flags of zos ledger init.
type initOptions struct {
	origin                   string
	roles, requires, rootKey []string
	shared                   bool
	window, lease, grace     time.Duration
	name, mirror, mesh       string
}

func ledgerInitCommand(a *app) *cobra.Command {
	var o initOptions
	cmd := &cobra.Command{
		Use:   "init DIR --origin NAME --role ROLE=KEY.pub[,…]:THRESHOLD … --require WHAT=ROLE[,…] --root-key KEY",
		Short: "make a new ledger: its keys and its trust root",
		Long: `Make the folder of a new ledger with one validator. It gets keys of its own
(DIR/keys, mode 0600) and a trust root (DIR/root.json) that says who may sign
what; the keys of role "root" sign it. Nodes get root.json in their image.

--require says which roles must sign a deployment, a stop, a voucher and the
next trust root. Left out: root=root, stop as deployment, voucher=operator. A
role "release" signs what software nodes run; without it (or --require release=…)
the ledger takes no release. Without a role "root" it is made of the --root-key keys, all of which must sign.

Exit codes: 0 made, 2 wrong arguments, 3 the policy does not hold together.`,
		Example: `  zos ledger init ./ledger --origin zos.example/prod \
      --role author=alice.pub,bob.pub:1 --role security=s1.pub,s2.pub,s3.pub:2 --role operator=op.pub:1 \
      --require deployment=author,security --root-key ~/.ssh/root`,
		Args: exactly(1, "the folder to make"),
		RunE: func(_ *cobra.Command, args []string) error { return a.ledgerInit(o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.origin, "origin", "", "name of the log, unique in the world, such as zos.example/prod")
	f.StringArrayVar(&o.roles, "role", nil, "ROLE=KEY.pub[,KEY.pub…]:THRESHOLD; repeat for each role")
	f.StringArrayVar(&o.requires, "require", nil, "WHAT=ROLE[,ROLE…], WHAT is deployment, stop, voucher, release or root")
	f.StringArrayVar(&o.rootKey, "root-key", nil, "private key that signs the trust root (or .pub of a key in ssh-agent); repeat for each")
	f.BoolVar(&o.shared, "shared-keys", false, "one key may fill several roles")
	f.DurationVar(&o.window, "window", 10*time.Second, "how long each next node waits before it may claim")
	f.DurationVar(&o.lease, "lease", 10*time.Minute, "how long a claim holds without renewal")
	f.DurationVar(&o.grace, "grace", 2*time.Minute, "what every lease gets after the ledger stood still")
	f.StringVar(&o.name, "name", "validator-1", "name of the validator, a DNS label")
	f.StringVar(&o.mirror, "mirror", "", "URL at which this validator's copy of the log is read, for the trust root")
	f.StringVar(&o.mesh, "mesh", "", "HOST:PORT on the private network of the validators, if there will be others")
	given(cmd, "origin", "root-key")
	return cmd
}

func (a *app) ledgerInit(o initOptions, dir string) error {
	var signers []sign.Signer
	for _, path := range o.rootKey {
		s, err := a.signer(path)
		if err != nil {
			return fileError(err)
		}
		signers = append(signers, s)
	}
	root, err := policyOf(o, signers)
	if err != nil {
		return err
	}
	v, m := ledger.Validator{Name: o.name, Mirror: o.mirror}, bft.Mesh{Listen: o.mesh}
	if err := bft.CheckNew(v, m); err != nil {
		return coded(exitUsage, fmt.Errorf("--name, --mirror, --mesh: %w", err))
	}
	if err := bft.Init(dir, root, v, m, signers, time.Now()); err != nil {
		return coded(exitRefused, err)
	}
	path := filepath.Join(dir, "root.json")
	made, err := trustRoot(path)
	if err != nil {
		return err
	}
	return a.print(struct {
		Dir    string `json:"dir"`
		Root   string `json:"root"`
		Origin string `json:"origin"`
		Key    string `json:"key"`
	}{dir, path, o.origin, made.Log.Validators[0].Log}, func(w io.Writer) {
		fmt.Fprintf(w, "made ledger %s in %s\n", o.origin, dir)
		fmt.Fprintf(w, "  trust root  %s (nodes and readers need it)\n", path)
		fmt.Fprintf(w, "  log key     %s\n", made.Log.Validators[0].Log)
		for _, name := range slices.Sorted(maps.Keys(made.Policy.Roles)) {
			r := made.Policy.Roles[name]
			fmt.Fprintf(w, "  role        %-10s %d of %d\n", name, r.Threshold, len(r.Keys))
		}
		for _, what := range slices.Sorted(maps.Keys(made.Require)) {
			fmt.Fprintf(w, "  a %-10s needs %s\n", what, strings.Join(made.Require[what], ", "))
		}
		fmt.Fprintf(w, "next: zos ledger serve %s\n", dir)
	})
}

// policyOf makes the trust root's policy from the flags.
func policyOf(o initOptions, signers []sign.Signer) (ledger.Root, error) {
	if o.origin == "" || strings.ContainsFunc(o.origin, func(r rune) bool { return unicode.IsSpace(r) || r == '+' || !unicode.IsPrint(r) }) {
		return ledger.Root{}, coded(exitUsage, fmt.Errorf("--origin %q: want a name without spaces and plus signs, unique in the world, such as zos.example/prod", o.origin))
	}
	root := ledger.Root{
		Log:     ledger.LogPolicy{Origin: o.origin},
		Policy:  sign.Policy{Roles: map[string]sign.Role{}, SharedKeys: o.shared},
		Require: map[string][]string{},
		Lease:   ledger.LeasePolicy{WindowMs: o.window.Milliseconds(), LeaseMs: o.lease.Milliseconds(), GraceMs: o.grace.Milliseconds()},
	}
	for _, text := range o.roles {
		name, role, err := parseRole(text)
		if err != nil {
			return root, err
		}
		if _, twice := root.Policy.Roles[name]; twice {
			return root, coded(exitUsage, fmt.Errorf("--role %s is given twice; put all its keys into one", name))
		}
		root.Policy.Roles[name] = role
	}
	if _, ok := root.Policy.Roles["root"]; !ok {
		r := sign.Role{Threshold: int64(len(signers))}
		for _, s := range signers {
			r.Keys = append(r.Keys, s.PublicKey())
		}
		root.Policy.Roles["root"] = r
	}
	for _, text := range o.requires {
		what, roles, ok := strings.Cut(text, "=")
		if !ok || roles == "" {
			return root, coded(exitUsage, fmt.Errorf("--require %q: want WHAT=ROLE[,ROLE…]", text))
		}
		root.Require[what] = strings.Split(roles, ",")
	}
	if len(root.Require["deployment"]) == 0 {
		return root, coded(exitUsage, errors.New("--require deployment=ROLE[,ROLE…] is needed: who must sign a deployment"))
	}
	if _, ok := root.Policy.Roles["operator"]; !ok && len(root.Require["voucher"]) == 0 {
		return root, coded(exitUsage, errors.New("--role operator=KEY.pub:1 is needed: vouchers for nodes are signed by it; or say who else with --require voucher=ROLE"))
	}
	for what, roles := range map[string][]string{"root": {"root"}, "stop": root.Require["deployment"], "voucher": {"operator"}} {
		if len(root.Require[what]) == 0 {
			root.Require[what] = roles
		}
	}
	if _, ok := root.Policy.Roles["release"]; ok && len(root.Require["release"]) == 0 {
		root.Require["release"] = []string{"release"}
	}
	return root, nil
}

// parseRole reads ROLE=KEY.pub[,KEY.pub…]:THRESHOLD.
func parseRole(text string) (name string, r sign.Role, err error) {
	name, rest, ok := strings.Cut(text, "=")
	colon := strings.LastIndex(rest, ":")
	if !ok || colon < 0 {
		return "", r, coded(exitUsage, fmt.Errorf("--role %q: want ROLE=KEY.pub[,KEY.pub…]:THRESHOLD", text))
	}
	if r.Threshold, err = strconv.ParseInt(rest[colon+1:], 10, 64); err != nil {
		return "", r, coded(exitUsage, fmt.Errorf("--role %q: threshold %q is no number", text, rest[colon+1:]))
	}
	for _, path := range strings.Split(rest[:colon], ",") {
		b, err := readFile(path, "a public key", maxKeyFile)
		if err != nil {
			return "", r, fileError(fmt.Errorf("--role %s: %w", name, err))
		}
		key, err := sign.ParsePublicKeyFile(b)
		if err != nil {
			return "", r, coded(exitRefused, fmt.Errorf("--role %s: %s: %w", name, path, err))
		}
		r.Keys = append(r.Keys, key)
	}
	return name, r, nil
}
