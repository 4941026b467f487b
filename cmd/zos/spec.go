// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/render"
)

// specCommands are the commands about what a deployment says.
func specCommands(a *app) []*cobra.Command {
	return []*cobra.Command{renderCommand(a), checkCommand(a)}
}

func renderCommand(a *app) *cobra.Command {
	var out, store string
	var defaults bool
	cmd := &cobra.Command{
		Use:   "render APP -o SPEC",
		Short: "fill in what an author left out, and write the bytes to sign",
		Long: `Turn an author's document (YAML or JSON) into a spec: every default is filled
in, every image and file becomes a digest. The same input gives the same bytes.

  image: oci:DIR, docker-archive:FILE or registry/name@sha256:<64 hex>; a tag
         is asked for now, and its digest is what the spec says. The image must
         have been converted into the store (zos image convert).
  kernel, initramfs: file:PATH or sha256:<64 hex>

Relative paths start at the folder of APP.

Exit codes: 0 written, 2 an image is named and no --store, 3 refused (with the
field and the reason), 4 a file or image that is named does not exist, 5 mirror
not reached.`,
		Example: `  zos render app.yaml --store store -o app.spec.json
  zos render --defaults`,
		Args: func(cmd *cobra.Command, args []string) error {
			if defaults {
				return nil
			}
			return exactly(1, "the author's document")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if defaults {
				return a.defaults()
			}
			if out == "" {
				return coded(exitUsage, fmt.Errorf("--output is needed; see zos render --help"))
			}
			return a.render(cmd.Context(), args[0], out, store)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&out, "output", "o", "", "spec to write")
	f.StringVar(&store, "store", os.Getenv("ZOS_STORE"), "chunk store that the images were converted into, a folder or a mirror's URL (ZOS_STORE)")
	f.BoolVar(&defaults, "defaults", false, "list all defaults instead")
	return cmd
}

// defaults lists what render fills in.
func (a *app) defaults() error {
	rows := render.Defaults()
	return a.print(rows, func(w io.Writer) {
		for _, row := range rows {
			value := row.Value
			if value == "" {
				value = row.Note
			} else if row.Note != "" {
				value += "  (" + row.Note + ")"
			}
			when := ""
			if row.When != "" {
				when = "  when " + row.When
			}
			fmt.Fprintf(w, "%-42s %s%s\n", row.Path, value, when)
		}
	})
}

func (a *app) render(ctx context.Context, app, out, store string) error {
	in, err := readFile(app, "an author's document", maxAuthored)
	if err != nil {
		return fileError(err)
	}
	r, err := newResolver(ctx, filepath.Dir(app), store, func(format string, args ...any) { fmt.Fprintf(a.err, format+"\n", args...) })
	if err != nil {
		return err
	}
	b, err := render.Deployment(in, r)
	if err != nil {
		return coded(r.code(), fmt.Errorf("%s: %w", app, err))
	}
	if err := writeFile(out, b, 0o644); err != nil {
		return fmt.Errorf("write the spec: %w", err)
	}
	s, err := summarise(b)
	if err != nil {
		return coded(exitRefused, err)
	}
	return a.print(struct {
		Output string `json:"output"`
		summary
	}{out, s}, func(w io.Writer) { s.write(w, out) })
}

func checkCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "check SPEC|ENVELOPE",
		Short: "check a spec as the ledger and every node will, and show what it says",
		Long: `Check a spec, or the spec inside an envelope, with the function that the
ledger and every node use. Signatures are not looked at: zos verify does that.

Exit codes: 0 valid, 3 refused (with the field and the reason), 4 file not
found.`,
		Example: `  zos check app.spec.json
  zos check app.envelope --json`,
		Args: exactly(1, "the spec to check"),
		RunE: func(_ *cobra.Command, args []string) error { return a.check(args[0]) },
	}
}

func (a *app) check(path string) error {
	b, err := readFile(path, "a spec or an envelope", sign.MaxEnvelope+1)
	if err != nil {
		return fileError(err)
	}
	if isEnvelope(b) {
		env, err := sign.DecodeEnvelope(b)
		if err != nil {
			return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
		}
		if env.PayloadType != spec.PayloadType {
			return coded(exitRefused, fmt.Errorf("%s: is an envelope of a %s, want a deployment", path, documentKind(env.PayloadType)))
		}
		b = env.Payload
	}
	s, err := summarise(b)
	if err != nil {
		return coded(exitRefused, fmt.Errorf("%s: %w", path, err))
	}
	return a.print(s, func(w io.Writer) { s.write(w, path) })
}

// summary is what a signer wants to see before signing.
type summary struct {
	Name    string           `json:"name"`
	Version int64            `json:"version"`
	Digest  string           `json:"digest"`
	Bytes   int              `json:"bytes"`
	Spec    *spec.Deployment `json:"spec"`
}

func summarise(b []byte) (summary, error) {
	d, err := spec.Decode(b)
	if err != nil {
		return summary{}, err
	}
	return summary{d.Metadata.Name, d.Metadata.Version, spec.Digest(b), len(b), d}, nil
}

// write shows everything that decides what may run and who can reach it.
func (s summary) write(w io.Writer, path string) {
	d := s.Spec
	line := func(head, format string, args ...any) {
		fmt.Fprintf(w, "  %-10s %s\n", head, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(w, "%s\n", harmless(path))
	line("deployment", "%s, version %d", s.Name, s.Version)
	line("digest", "%s  (%d bytes)", s.Digest, s.Bytes)
	line("placement", "%d × %s%s; on partition: %s", d.Placement.Replicas, d.Placement.Arch, pairs(d.Placement.Labels), d.Placement.OnPartition)
	for _, n := range d.Networks {
		line("network", "%s  %s, %s", n.Name, n.Subnet, n.Isolation)
	}
	for _, g := range d.Gateways {
		line("gateway", "%s  %s port %d to %s:%d over %s", g.Name, g.Protocol, g.Port, g.Machine, g.TargetPort, g.Network)
	}
	for _, v := range d.Volumes {
		line("volume", "%s  %d MiB %s, encryption %s, at the end %s", v.Name, v.SizeMiB, v.Filesystem, v.Encryption, v.AtEnd)
	}
	for _, m := range d.Machines {
		line("machine", "%s  %d vCPU, %d MiB, hypervisor %s", m.Name, m.VCPUs, m.MemoryMiB, m.Hypervisor)
		line("", "image %s, OCI %s", m.Image.ID, m.Image.OCI)
		line("", "verity %s", m.Image.VerityRoot)
		line("", "kernel %s, initramfs %s", m.Kernel, m.Initramfs)
		line("", "cmdline %s", m.Cmdline)
		line("", "runs %s as %s in %s", words(m.Process.Args), m.Process.User, m.Process.Cwd)
		for _, name := range slices.Sorted(maps.Keys(m.Process.Env)) {
			line("", "env %s=%s", name, words([]string{m.Process.Env[name]}))
		}
		if len(m.Process.Capabilities) > 0 {
			line("", "keeps %s", strings.Join(m.Process.Capabilities, " "))
		}
		for _, i := range m.Interfaces {
			line("", "address %s in %s", i.Address, i.Network)
		}
		for _, f := range m.Files {
			content, err := f.Bytes()
			if err != nil {
				line("", "file %s: %s", f.Path, harmless(err.Error()))
				continue
			}
			line("", "file %s, %d bytes, mode %s, owner %d:%d", f.Path, len(content), f.Mode, f.UID, f.GID)
			line("", "  content %s", spec.Digest(content))
		}
		for _, t := range m.Mounts {
			line("", "%s at %s", strings.TrimSpace(t.Type+" "+t.Volume), t.Path)
		}
		if len(m.DependsOn) > 0 {
			line("", "waits for %s", strings.Join(m.DependsOn, ", "))
		}
		check := m.Health.Kind
		if len(m.Health.Args) > 0 {
			check += " " + words(m.Health.Args)
		}
		line("", "health: %s; on failure: %s", check, m.Failure.Action)
	}
	if len(d.Security.RequiredRoles) > 0 {
		line("signatures", "beyond the policy: %s", strings.Join(d.Security.RequiredRoles, ", "))
	}
}

// words shows texts so that a signer sees where each ends, and so that no
// control character in one of them can paint over the rest.
func words(all []string) string {
	shown := make([]string, len(all))
	for i, s := range all {
		shown[i] = s
		if q := strconv.Quote(s); s == "" || q != `"`+s+`"` || strings.Contains(s, " ") {
			shown[i] = q
		}
	}
	return strings.Join(shown, " ")
}
