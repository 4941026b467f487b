// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/bft"
	"github.com/zos-node/zos/spec/strict"
)

func ledgerJoinCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var name, mirror, mesh string
	var peers []string
	var snapshot, replace bool
	cmd := &cobra.Command{
		Use:   "join DIR --name NAME --mesh HOST:PORT --peer PEER --ledger URL --root ROOT",
		Short: "make the folder of a server that follows a ledger and can become a validator of it",
		Long: `Make the folder of one more server of an existing ledger: keys of its own
(DIR/keys, mode 0600) and its public description, DIR/validator.json, which
the others need: each operator adds it with zos ledger peer, and those who hold
the root keys make it a validator with zos ledger invite. Before that, start it
with zos ledger serve DIR and let it catch up.

PEER is the validator.json of a server that is there already, or ID@HOST:PORT.
HOST:PORT has to be on a private network that only the validators reach.

It applies every block from the first, which it gets from its peers. Where those have
pruned the past, or that takes too long, --from-snapshot starts from the newest snapshot
of a validator: its state is proven by the cosigned log, the rest by the votes for the
block after it. --ledger has to name a validator then; a mirror knows no votes.

A name that a validator has already is refused; --replace takes it, for a server
that is to come in that one's place with keys of its own.

Exit codes: 0 made, 2 wrong arguments, 3 refused, or the ledger is not believed, 5 not reached.`,
		Example: `  zos ledger join ./ledger --name validator-2 --mesh 10.9.0.2:8471 --peer validator-1.json \
      --ledger https://ledger-1.example --root root.json --mirror https://ledger-2.example`,
		Args: exactly(1, "the folder to make"),
		RunE: func(cmd *cobra.Command, args []string) error {
			m := bft.Mesh{Listen: mesh}
			if err := bft.CheckNew(ledger.Validator{Name: name, Mirror: mirror}, m); err != nil {
				return coded(exitUsage, fmt.Errorf("--name, --mirror, --mesh: %w", err))
			}
			for _, p := range peers {
				address, err := peerAddress(p)
				if err != nil {
					return err
				}
				m.Add(address)
			}
			f.whole = !snapshot
			c, err := a.sync(cmd.Context(), f)
			if err != nil {
				return err
			}
			if err := nameIsFree(c.State().Root().Log, ledger.Validator{Name: name}, replace); err != nil {
				return err
			}
			d, err := bft.Join(cmd.Context(), args[0], c, ledger.Validator{Name: name, Mirror: mirror}, m, snapshot)
			if err != nil {
				return coded(exitRefused, err)
			}
			path := filepath.Join(args[0], "validator.json")
			return a.print(struct {
				Dir         string          `json:"dir"`
				Description string          `json:"description"`
				Validator   bft.Description `json:"validator"`
			}{args[0], path, d}, func(w io.Writer) {
				fmt.Fprintf(w, "made %s, which follows %s\n", args[0], c.State().Root().Log.Origin)
				fmt.Fprintf(w, "  description %s (public; for the other operators)\n", path)
				fmt.Fprintf(w, "  peer        %s\n", d.Peer)
				fmt.Fprintf(w, "next: the others run zos ledger peer DIR %s; then zos ledger serve %s; then zos ledger invite\n", path, args[0])
			})
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&name, "name", "", "name of the validator, a DNS label, unique in the ledger")
	cmd.Flags().StringVar(&mirror, "mirror", "", "URL at which this validator's copy of the log is read, for the trust root")
	cmd.Flags().StringVar(&mesh, "mesh", "", "HOST:PORT on the private network of the validators")
	cmd.Flags().StringArrayVar(&peers, "peer", nil, "validator.json of another server, or ID@HOST:PORT; repeat for each")
	cmd.Flags().BoolVar(&snapshot, "from-snapshot", false, "start from a validator's newest snapshot instead of from the first block")
	cmd.Flags().BoolVar(&replace, "replace", false, "take the name of a validator that this server is to replace")
	given(cmd, "name", "mesh", "peer")
	return cmd
}

// nameIsFree refuses a name that a validator with another consensus key has.
func nameIsFree(l ledger.LogPolicy, v ledger.Validator, replace bool) error {
	for _, old := range l.Validators {
		if old.Name == v.Name && old.Consensus != v.Consensus && !replace {
			return coded(exitRefused, fmt.Errorf("the ledger has a validator %s with another key already: choose another --name for the new server, or say --replace if it is to come in that one's place", v.Name))
		}
	}
	return nil
}

// description reads the public description of a server.
func description(path string) (bft.Description, error) {
	if _, err := readFile(path, "a validator.json", ledger.MaxEntry); err != nil {
		return bft.Description{}, fmt.Errorf("validator: %w", err)
	}
	d, err := bft.ReadDescription(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, fs.ErrPermission) {
		return d, coded(exitRefused, fmt.Errorf("%w; want the validator.json that zos ledger init or join made in that server's folder", err))
	}
	return d, fileError(err)
}

// rotateOptions are the flags of invite and leave.
type rotateOptions struct {
	ledgerFlags
	keys []string
	out  string
}

func (o *rotateOptions) add(cmd *cobra.Command) {
	o.ledgerFlags.add(cmd)
	cmd.Flags().StringArrayVar(&o.keys, "key", nil, "private key of the root role (or .pub of a key in ssh-agent); repeat for each")
	cmd.Flags().StringVarP(&o.out, "output", "o", "", "write the next trust root for others to sign (zos sign --role root), and submit nothing")
	given(cmd, "key")
}

func ledgerInviteCommand(a *app) *cobra.Command {
	var o rotateOptions
	var replace bool
	cmd := &cobra.Command{
		Use:   "invite VALIDATOR.json … --key ROOTKEY",
		Short: "make servers that joined validators: sign the next trust root and submit it",
		Long: `Sign a trust root in which the named servers are validators too, and submit it.
From its block on, more than two thirds of all of them order entries and cosign
checkpoints. Each of the servers has to run, be up to date and be known to the
server that it is submitted to (zos ledger peer), else it is refused: one that is
not there takes away a failure that the ledger could bear. Nodes and readers
follow by themselves; old images and proofs stay valid.

A description of a validator that is there already updates it. One with the name
of another is refused; with --replace it comes in that one's place. Where nothing
would change, no trust root is made.

Exit codes: 0 on the ledger, or nothing changes, 3 refused, 4 no such file, 5 not reached.`,
		Example: `  zos ledger invite validator-2.json validator-3.json validator-4.json --key ~/.ssh/root --root root.json
  zos ledger invite validator-2.json --key a.key --root root.json -o next.json && zos sign --role root --key b.key next.json -o next.json && zos submit next.json`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var more []ledger.Validator
			for _, path := range args {
				d, err := description(path)
				if err != nil {
					return err
				}
				more = append(more, d.Validator)
			}
			return a.rotate(cmd.Context(), o, func(l *ledger.LogPolicy) error {
				for _, v := range more {
					if err := nameIsFree(*l, v, replace); err != nil {
						return err
					}
					if i := slices.IndexFunc(l.Validators, func(old ledger.Validator) bool { return old.Name == v.Name }); i >= 0 {
						l.Validators[i] = v
					} else {
						l.Validators = append(l.Validators, v)
					}
				}
				return nil
			})
		},
	}
	o.add(cmd)
	cmd.Flags().BoolVar(&replace, "replace", false, "let a server take the place of the validator whose name it has")
	return cmd
}

func ledgerLeaveCommand(a *app) *cobra.Command {
	var o rotateOptions
	cmd := &cobra.Command{
		Use:   "leave NAME … --key ROOTKEY",
		Short: "take validators out: sign the next trust root and submit it",
		Long: `Sign a trust root without the named validators, and submit it. Their servers
may go on as mirrors, or be stopped once the others have the block. Submit it
to one that stays.

Exit codes: 0 on the ledger, 3 refused, 4 no such validator, 5 not reached.`,
		Example: `  zos ledger leave validator-3 --key ~/.ssh/root --root root.json --ledger https://ledger-1.example`,
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.rotate(cmd.Context(), o, func(l *ledger.LogPolicy) error {
				for _, name := range args {
					before := len(l.Validators)
					l.Validators = slices.DeleteFunc(l.Validators, func(v ledger.Validator) bool { return v.Name == name })
					if len(l.Validators) == before {
						return coded(exitNotFound, fmt.Errorf("the ledger has no validator %q", name))
					}
				}
				if len(l.Validators) == 0 {
					return coded(exitRefused, errors.New("nobody would be left to order entries"))
				}
				return nil
			})
		},
	}
	o.add(cmd)
	return cmd
}

const (
	rotateTries = 20
	rotateAgain = 250 * time.Millisecond
)

// rotate makes, signs and submits the next root of trust. A server may order by
// a root that it has not published yet, for want of the others' cosignatures:
// then the change is made to that one, once it can be read.
func (a *app) rotate(ctx context.Context, o rotateOptions, change func(*ledger.LogPolicy) error) error {
	for try := 1; ; try++ {
		err := a.rotateOnce(ctx, o, change)
		var refused *ledger.Refused
		if try == rotateTries || !errors.As(err, &refused) || !strings.HasPrefix(refused.Error(), "payload.version:") {
			return err
		}
		if try == 1 {
			fmt.Fprintf(a.err, "the server orders by a newer trust root than it has published (%s); waiting for it, for at most %s\n", harmlessLines(refused.Error()), rotateTries*rotateAgain)
		}
		select {
		case <-ctx.Done():
			return err
		case <-time.After(rotateAgain):
		}
	}
}

func (a *app) rotateOnce(ctx context.Context, o rotateOptions, change func(*ledger.LogPolicy) error) error {
	c, err := a.sync(ctx, o.ledgerFlags)
	if err != nil {
		return err
	}
	root := *c.State().Root()
	root.Version++
	root.Log.Validators = slices.Clone(root.Log.Validators)
	if err := change(&root.Log); err != nil {
		return err
	}
	if slices.Equal(root.Log.Validators, c.State().Root().Log.Validators) {
		return a.nothingChanges(o, root.Version-1, len(root.Log.Validators))
	}
	root.Log.Quorum = ledger.QuorumOf(len(root.Log.Validators))
	if err := root.Validate(); err != nil {
		return coded(exitRefused, err)
	}
	body, err := strict.Encode(root)
	if err != nil {
		return fmt.Errorf("encode the trust root: %w", err)
	}
	raw, err := a.signAll(ledger.TypeRoot, body, o.keys)
	if err != nil {
		return err
	}
	if o.out == "" {
		return a.submit(ctx, o.ledgerFlags, raw, fmt.Sprintf("trust root version %d (%d validators, %d of them needed)", root.Version, len(root.Log.Validators), root.Log.Quorum))
	}
	if err := writeFile(o.out, raw, 0o644); err != nil {
		return fmt.Errorf("write the trust root: %w", err)
	}
	return a.print(struct {
		Output  string `json:"output"`
		Version int64  `json:"version"`
	}{o.out, root.Version}, func(w io.Writer) {
		fmt.Fprintf(w, "trust root version %d is in %s; zos sign --role root adds signatures, zos submit puts it on the ledger\n", root.Version, o.out)
	})
}

// nothingChanges answers a change that the present trust root has already.
func (a *app) nothingChanges(o rotateOptions, version int64, n int) error {
	if o.out != "" {
		return coded(exitRefused, fmt.Errorf("nothing changes: trust root version %d has exactly these %d validators, so %s is not written; there is nothing to sign", version, n, o.out))
	}
	return a.print(struct {
		Version int64 `json:"version"`
		Changed bool  `json:"changed"`
	}{version, false}, func(w io.Writer) {
		fmt.Fprintf(w, "nothing changes: trust root version %d has exactly these %d validators\n", version, n)
	})
}
