// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/image"
	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
	"github.com/zos-node/zos/zimage"
)

// softwareCommands say what nodes run: releases of the image, and rollouts.
func softwareCommands(a *app) []*cobra.Command {
	return []*cobra.Command{releaseCommand(a), rolloutCommand(a)}
}

// softwareFlags are what both have.
type softwareFlags struct {
	ledgerFlags
	keys []string
	out  string
}

func (f *softwareFlags) add(cmd *cobra.Command) {
	f.ledgerFlags.add(cmd)
	cmd.Flags().StringArrayVar(&f.keys, "key", nil, "private key of the role that signs releases (or .pub of a key in ssh-agent); repeat for each")
	cmd.Flags().StringVarP(&f.out, "output", "o", "", "write the envelope here instead of submitting it, for others to sign (zos sign) and submit")
	given(cmd, "key")
}

func releaseCommand(a *app) *cobra.Command {
	var f softwareFlags
	var store, notes string
	var mirrors []string
	var whole bool
	cmd := &cobra.Command{
		Use:   "release UKI... --key KEY",
		Short: "make a version of the node's image known, for rollouts",
		Long: `Sign a release of the node's image, from one UKI (node.uki of zos node build) for
each board, and put it on the ledger. Version and board stand in the UKIs; a
version stands for its images for ever. No node runs it before a rollout says so.

With --store the UKIs also go into a store, as files that a mirror serves under
their digests, each with the list of its chunks; nodes fetch them from the mirrors
of their seed and of --mirror, and believe none. The release names the lists, so
that a node checks each chunk before it keeps it. --whole leaves them out: nodes
and validators from before there were lists do not know such releases. The trust
root must name roles for it (require "release").

Exit codes: 0 on the ledger, 3 refused, 4 no such file, 5 not reached.`,
		Example: `  zos release build/images/pc-x86_64/node.uki --key ~/.ssh/release --root root.json --store build/store
  zos release a/node.uki b/node.uki --key k1 -o release.envelope && zos sign release.envelope --key k2 --role release -o release.envelope`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) == 0 || len(args) > maxBoards {
				return fmt.Errorf("want the UKIs of one version, one for each board, at most %d", maxBoards)
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := readRelease(args)
			if err != nil {
				return err
			}
			r.Mirrors, r.Notes = append([]string{}, mirrors...), notes
			if store != "" {
				if err := storeUKIs(store, args); err != nil {
					return err
				}
			}
			if whole {
				plain, _ := r.Parts()
				return a.software(cmd.Context(), f, ledger.TypeNodeRelease, plain, "release "+r.Version)
			}
			return a.software(cmd.Context(), f, ledger.TypeChunkedRelease, r, "release "+r.Version)
		},
	}
	f.add(cmd)
	cmd.Flags().StringVar(&store, "store", "", "folder of a store that gets the UKIs")
	cmd.Flags().StringArrayVar(&mirrors, "mirror", nil, "base URL of a mirror that has the UKIs, beside those of nodes' seeds; repeat for each")
	cmd.Flags().BoolVar(&whole, "whole", false, "without lists of chunks, for nodes and validators that do not know them")
	cmd.Flags().StringVar(&notes, "notes", "", "what is new, for those who read the ledger")
	return cmd
}

const (
	maxBoards = 64 // of a release
	maxUKI    = 1 << 30
)

// readRelease looks into the UKIs and cuts them.
func readRelease(names []string) (ledger.ChunkedRelease, error) {
	var r ledger.ChunkedRelease
	for _, name := range names {
		b, err := readFile(name, "a UKI", maxUKI+1)
		if err != nil {
			return r, fileError(err)
		}
		u, err := image.ReadUKI(b)
		if err != nil {
			return r, coded(exitRefused, fmt.Errorf("%s: %w; want node.uki of zos node build", name, err))
		}
		about := osRelease(u.OSRel)
		version, board := about["IMAGE_VERSION"], about["IMAGE_ID"]
		switch {
		case !ledger.ValidVersion(version):
			return r, coded(exitRefused, fmt.Errorf("%s: is of version %q, want two to four numbers such as 1.4.0 (zos node build --version)", name, version))
		case r.Version != "" && r.Version != version:
			return r, coded(exitRefused, fmt.Errorf("%s: is of version %s, the ones before it of %s: a release is one version", name, version, r.Version))
		case slices.ContainsFunc(r.Images, func(i ledger.ChunkedImage) bool { return i.Board == board }):
			return r, coded(exitRefused, fmt.Errorf("%s: there is another UKI for board %s", name, board))
		}
		l, err := zimage.ListChunks(bytes.NewReader(b))
		if err != nil {
			return r, coded(exitRefused, fmt.Errorf("%s: %w", name, err))
		}
		list, err := l.Encode()
		if err != nil {
			return r, fmt.Errorf("%s: %w", name, err)
		}
		sum := sha256.Sum256(list)
		r.Version = version
		r.Images = append(r.Images, ledger.ChunkedImage{Board: board, Digest: l.Blob, Size: l.Size, Chunks: "sha256:" + hex.EncodeToString(sum[:])})
	}
	slices.SortFunc(r.Images, func(a, b ledger.ChunkedImage) int { return cmp.Compare(a.Board, b.Board) })
	return r, nil
}

// osRelease reads the values of an os-release text.
func osRelease(b []byte) map[string]string {
	all := map[string]string{}
	for line := range strings.Lines(string(bytes.TrimSpace(b))) {
		if k, v, ok := strings.Cut(strings.TrimSpace(line), "="); ok {
			all[k] = strings.Trim(v, `"`)
		}
	}
	return all
}

func storeUKIs(dir string, names []string) error {
	s, _, err := makeStore(dir)
	if err != nil {
		return imageError(err)
	}
	for _, name := range names {
		if _, _, err := s.AddBlobInChunks(name); err != nil {
			return imageError(err)
		}
	}
	return nil
}

func rolloutCommand(a *app) *cobra.Command {
	var f softwareFlags
	var labels map[string]string
	var waves []int64
	var pace time.Duration
	var floor string
	var maxFailed int64
	cmd := &cobra.Command{
		Use:   "rollout VERSION --key KEY",
		Short: "send a release to nodes, in waves",
		Long: `Sign a rollout of a release that is on the ledger. Nodes that have all of --label
take it (for each node its newest rollout counts): the first wave at once, each
other one --pace after the one before it. A node writes the image beside the one
that it runs, tries it, and goes back by itself when it does not become healthy
(docs/boot.md). When --max-failed nodes went back, nobody begins any more.

--floor VERSION is for a hole that must not come back: nodes never again run
anything lower. It never goes down, and is for all nodes, so it takes no --label.

Exit codes: 0 on the ledger, 2 wrong arguments, 3 refused, 4 no such release, 5 not reached.`,
		Example: `  zos rollout 1.4.0 --key ~/.ssh/release --root root.json --waves 5,25,100 --pace 6h
  zos rollout 1.4.1 --key ~/.ssh/release --root root.json --label site=lab --json | jq .index`,
		Args: exactly(1, "the version to roll out"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p := ledger.Rollout{Version: args[0], Labels: labels, Waves: waves, PaceMs: pace.Milliseconds(), Floor: floor, MaxFailed: maxFailed}
			if p.Labels == nil {
				p.Labels = map[string]string{}
			}
			if pace < 0 || len(p.Waves) > 1 && p.PaceMs == 0 {
				return coded(exitUsage, fmt.Errorf("--pace %s: want the time between two waves, such as 6h; to send it to all at once, say --waves 100", pace))
			}
			if len(p.Waves) == 1 {
				p.PaceMs = 0
			}
			if err := p.Validate(); err != nil {
				return coded(exitUsage, rolloutFlag(err))
			}
			c, err := a.sync(cmd.Context(), f.ledgerFlags)
			if err != nil {
				return err
			}
			at := slices.IndexFunc(c.State().Releases(), func(r *ledger.Released) bool { return r.Version == p.Version })
			if at < 0 {
				return coded(exitNotFound, fmt.Errorf("release %s is not on the ledger; zos status lists those that are, zos release makes one", p.Version))
			}
			p.Release = c.State().Releases()[at].ID
			return a.software(cmd.Context(), f, ledger.TypeRollout, p, "rollout of "+p.Version)
		},
	}
	f.add(cmd)
	cmd.Flags().StringToStringVar(&labels, "label", nil, "KEY=VALUE that a node must have; repeat for each; none: every node")
	cmd.Flags().Int64SliceVar(&waves, "waves", []int64{10, 50, 100}, "percent of the nodes that may have begun, wave by wave; the last is 100")
	cmd.Flags().DurationVar(&pace, "pace", time.Hour, "time between two waves")
	cmd.Flags().StringVar(&floor, "floor", "", "lowest version that any node may run from now on")
	cmd.Flags().Int64Var(&maxFailed, "max-failed", 1, "so many nodes that went back stop it")
	return cmd
}

// rolloutFlag says what is wrong by the flag that it came from.
func rolloutFlag(err error) error {
	var r *ledger.Refused
	if !errors.As(err, &r) {
		return err
	}
	field, _, _ := strings.Cut(r.Field, "[")
	switch field {
	case "version":
		return fmt.Errorf("the version to roll out %s", r.Reason)
	case "maxFailed":
		field = "max-failed"
	case "labels":
		field = "label"
	case "waves", "floor":
	default:
		return err
	}
	return fmt.Errorf("--%s: %s", field, r.Reason)
}

// software signs an entry and submits it, or writes it for others to sign.
func (a *app) software(ctx context.Context, f softwareFlags, kind string, payload any, what string) error {
	body, err := strict.Encode(payload)
	if err != nil {
		return fmt.Errorf("encode the %s: %w", what, err)
	}
	raw, err := a.signAll(kind, body, f.keys)
	if err != nil {
		return err
	}
	if _, err := ledger.Decode(raw); err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", what, err))
	}
	if f.out == "" {
		return a.submit(ctx, f.ledgerFlags, raw, what)
	}
	if err := mayRelease(f.root, raw); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	if err := writeFile(f.out, raw, 0o644); err != nil {
		return fileError(fmt.Errorf("write the envelope: %w", err))
	}
	return a.print(struct {
		Output string `json:"output"`
	}{f.out}, func(w io.Writer) {
		fmt.Fprintf(w, "%s is in %s; zos sign adds signatures, zos submit puts it on the ledger\n", what, f.out)
	})
}

// mayRelease refuses signatures that would count for nothing, where a trust root
// says so. Others may still have to sign.
func mayRelease(rootFile string, raw []byte) error {
	if rootFile == "" {
		return nil
	}
	root, err := trustRoot(rootFile)
	if err != nil {
		return err
	}
	env, err := sign.DecodeEnvelope(raw)
	if err != nil {
		return coded(exitRefused, err)
	}
	keys, err := env.Keys()
	if err != nil {
		return coded(exitRefused, err)
	}
	roles := root.Require["release"]
	for _, k := range keys {
		if slices.ContainsFunc(roles, func(r string) bool { return slices.Contains(root.Policy.Roles[r].Keys, k) }) {
			continue
		}
		id, err := sign.Fingerprint(k)
		if err != nil {
			return coded(exitRefused, err)
		}
		if len(roles) == 0 {
			return coded(exitRefused, fmt.Errorf("root version %d names no role for releases: the next one needs require.release", root.Version))
		}
		return coded(exitRefused, fmt.Errorf("key %s is in none of the roles that sign releases in root version %d (%s): nothing was written", id, root.Version, strings.Join(roles, ", ")))
	}
	return nil
}
