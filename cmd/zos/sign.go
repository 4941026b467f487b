// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/strict"
)

// signCommands are the commands about who agreed.
func signCommands(a *app) []*cobra.Command {
	return []*cobra.Command{signCommand(a), verifyCommand(a)}
}

// signOptions are the flags of zos sign.
type signOptions struct {
	key, role, root, out, kind string
}

func signCommand(a *app) *cobra.Command {
	var o signOptions
	cmd := &cobra.Command{
		Use:   "sign --key KEY --role ROLE SPEC|ENVELOPE -o ENVELOPE",
		Short: "add a signature to a spec or to an envelope that others have signed",
		Long: `Sign a spec, or add a signature to an envelope. The exact bytes of the file are
signed (DSSE, each signature an SSHSIG that ssh-keygen -Y verify understands);
a document that a node would refuse is refused here.

KEY is an OpenSSH private key file (ed25519 or ecdsa-p256), or a .pub file
whose private half is in the ssh-agent of SSH_AUTH_SOCK, such as a key on a
FIDO token. ROLE is what you sign as: with --root, a key that the trust root
does not list in this role is refused.

Exit codes: 0 signed, 3 refused (invalid document, key not in the role, key
has signed already), 4 file not found.`,
		Example: `  zos sign --key ~/.ssh/id_ed25519 --role author --root root.json shop.json -o shop.envelope
  zos sign --key token.pub --role security --root root.json shop.envelope -o shop.envelope
  zos sign --type voucher --key operator --role operator voucher.json -o voucher.envelope`,
		Args: exactly(1, "the spec or envelope to sign"),
		RunE: func(_ *cobra.Command, args []string) error { return a.sign(o, args[0]) },
	}
	f := cmd.Flags()
	f.StringVar(&o.key, "key", "", "private key file, or .pub file of a key in ssh-agent")
	f.StringVar(&o.role, "role", "", "role to sign as")
	f.StringVar(&o.root, "root", os.Getenv("ZOS_ROOT"), "trust root envelope (ZOS_ROOT)")
	f.StringVarP(&o.out, "output", "o", "", "envelope to write; may be the file that is read")
	f.StringVar(&o.kind, "type", "deployment", "kind of a document that is no envelope yet: deployment, voucher, expiring-voucher, stop, root, node-release, chunked-release, rollout")
	required(cmd, "key", "role", "output")
	return cmd
}

// required marks flags without which a command makes no sense.
func required(cmd *cobra.Command, flags ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range flags {
			if cmd.Flags().Lookup(name).Value.String() == "" {
				return coded(exitUsage, fmt.Errorf("--%s is needed; see %s --help", name, cmd.CommandPath()))
			}
		}
		return nil
	}
}

// exactly wants n arguments and says which.
func exactly(n int, what string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != n {
			return fmt.Errorf("want %s", what)
		}
		return nil
	}
}

// fileError gives a failed read its exit code.
func fileError(err error) error {
	if c := new(codedError); errors.As(err, &c) {
		return err
	}
	if errors.Is(err, fs.ErrNotExist) {
		return coded(exitNotFound, err)
	}
	return coded(exitFailed, err)
}

// kinds are the documents that people sign.
const kinds = "deployment voucher expiring-voucher stop root node-release chunked-release rollout"

func (a *app) sign(o signOptions, path string) error {
	if !slices.Contains(strings.Fields(kinds), o.kind) {
		return coded(exitUsage, fmt.Errorf("--type %q: want one of: %s", o.kind, strings.Join(strings.Fields(kinds), ", ")))
	}
	env, err := readDocument(path, o.kind)
	if err != nil {
		return err
	}
	var root *ledger.Root
	if o.root != "" {
		if root, err = trustRoot(o.root); err != nil {
			return err
		}
	}
	signer, err := a.signer(o.key)
	if err != nil {
		return fileError(err)
	}
	if err := a.checkRole(root, o.role, signer, env); err != nil {
		return coded(exitRefused, err)
	}
	// What stands there must hold before one more agrees to it.
	if _, err := env.Keys(); err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	if err := env.Add(signer); err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	out, err := env.Encode()
	if err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	if err := writeFile(o.out, out, 0o644); err != nil {
		return fmt.Errorf("write the envelope: %w", err)
	}
	r, err := examine(env, root)
	if err != nil {
		return coded(exitRefused, err)
	}
	return a.print(struct {
		Output string `json:"output"`
		KeyID  string `json:"keyid"`
		Role   string `json:"role"`
		report
	}{o.out, signer.KeyID(), o.role, r}, func(w io.Writer) {
		fmt.Fprintf(w, "signed as %s with %s\n", o.role, signer.KeyID())
		r.write(w, o.out)
	})
}

// signer opens the key: a private key file, or through the ssh-agent.
func (a *app) signer(path string) (sign.Signer, error) {
	text, err := readFile(path, "a key", maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if public, err := sign.ParsePublicKeyFile(text); err == nil {
		return sign.AgentSigner(os.Getenv("SSH_AUTH_SOCK"), public)
	}
	s, err := sign.LoadSigner(path, func() ([]byte, error) { return askPassphrase(path) })
	// It was read just now: what is wrong is the key.
	return s, coded(exitRefused, err)
}

// askPassphrase asks on the terminal itself: standard input and output may be
// pipes.
func askPassphrase(path string) (secret []byte, err error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("there is no terminal to ask on: %w", err)
	}
	defer func() { err = errors.Join(err, tty.Close()) }()
	if _, err := fmt.Fprintf(tty, "Passphrase of %s: ", harmless(path)); err != nil {
		return nil, fmt.Errorf("ask on the terminal: %w", err)
	}
	secret, err = term.ReadPassword(int(tty.Fd()))
	if _, newline := fmt.Fprintln(tty); newline != nil {
		err = errors.Join(err, newline)
	}
	return secret, err
}

// checkRole holds a key against the trust root, so that a signature that
// would count for nothing is not made.
func (a *app) checkRole(root *ledger.Root, role string, s sign.Signer, env *sign.Envelope) error {
	if root == nil {
		fmt.Fprintf(a.err, "note: without --root nobody checks that this key may sign as %q\n", role)
		return nil
	}
	r, ok := root.Policy.Roles[role]
	if !ok {
		return fmt.Errorf("root version %d has no role %q", root.Version, role)
	}
	if !slices.Contains(r.Keys, s.PublicKey()) {
		return fmt.Errorf("key %s is not in role %q of root version %d", s.KeyID(), role, root.Version)
	}
	kind := documentKind(env.PayloadType)
	if !slices.Contains(root.Require[kind], role) && !slices.Contains(requiredRoles(env), role) {
		fmt.Fprintf(a.err, "note: root version %d does not require role %q for a %s\n", root.Version, role, kind)
	}
	return nil
}

// requiredRoles are those that a deployment asks for beyond the policy.
func requiredRoles(env *sign.Envelope) []string {
	d, err := spec.Decode(env.Payload)
	if env.PayloadType != spec.PayloadType || err != nil {
		return nil
	}
	return d.Security.RequiredRoles
}

// trustRoot reads a trust root and checks that it is signed by its own policy.
func trustRoot(path string) (*ledger.Root, error) {
	b, err := readFile(path, "a trust root", ledger.MaxEntry+1)
	if err != nil {
		return nil, fileError(fmt.Errorf("trust root: %w", err))
	}
	root, keys, err := ledger.DecodeRoot(bytes.TrimSpace(b))
	if err != nil {
		return nil, coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	if err := root.Succeeds(nil, keys); err != nil {
		return nil, coded(exitRefused, fmt.Errorf("%s: trust root: %w", path, err))
	}
	return root, nil
}

// documentKind is the short name of a payload type, as Root.Require has it.
// Releases and rollouts are signed by the same roles.
func documentKind(payloadType string) string {
	switch payloadType {
	case ledger.TypeNodeRelease, ledger.TypeChunkedRelease, ledger.TypeRollout:
		return "release"
	case ledger.TypeExpiringVoucher:
		return "voucher"
	}
	namespace, err := sign.Namespace(payloadType)
	if err != nil {
		return payloadType
	}
	return strings.TrimSuffix(namespace, "@zos")
}

// readDocument reads an envelope, or puts a bare document into one that
// nobody has signed. The payload is checked either way.
func readDocument(path, kind string) (*sign.Envelope, error) {
	b, err := readFile(path, "a document or an envelope", sign.MaxEnvelope+1)
	if err != nil {
		return nil, fileError(err)
	}
	env := &sign.Envelope{PayloadType: "application/vnd.zos." + kind + ".v1+json", Payload: b}
	if isEnvelope(b) {
		if env, err = sign.DecodeEnvelope(b); err != nil {
			return nil, coded(exitRefused, fmt.Errorf("%s: %w", path, err))
		}
	}
	if err := checkPayload(env); err != nil {
		return nil, coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	return env, nil
}

// isEnvelope tells an envelope from a bare document: no document has the
// field payloadType. It only chooses who is to refuse what is neither.
func isEnvelope(b []byte) bool {
	tree, err := strict.Tree(b, sign.MaxEnvelope)
	if err != nil {
		return bytes.Contains(b, []byte(`"payloadType"`))
	}
	top, ok := tree.(map[string]any)
	if !ok {
		return false
	}
	_, ok = top["payloadType"]
	return ok
}

// checkPayload refuses documents that the ledger would refuse.
func checkPayload(env *sign.Envelope) error {
	switch env.PayloadType {
	case spec.PayloadType:
		_, err := spec.Decode(env.Payload)
		return err
	case ledger.TypeVoucher, ledger.TypeExpiringVoucher:
		_, err := ledger.OpenVoucher(env)
		return err
	}
	whole, err := env.Encode()
	if err != nil {
		return err
	}
	_, err = ledger.Decode(whole)
	return err
}
