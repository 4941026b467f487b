// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"path/filepath"
	"slices"
	"strings"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/render"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/oci"
)

// resolver finds files beside the author's document, and images in a chunk
// store that they were converted into, or in a mirror of one.
type resolver struct {
	ctx   context.Context // of the one command that this resolver serves
	dir   string          // relative paths start here
	store string          // "" when there is none
	note  func(format string, args ...any)
	cause error // why the last reference was not resolved

	hint     func(digest, platform string) (zimage.Hint, error)
	manifest func(id string) (zimage.Manifest, error)
}

func newResolver(ctx context.Context, dir, store string, note func(format string, args ...any)) (*resolver, error) {
	r := &resolver{ctx: ctx, dir: dir, store: store, note: note}
	if strings.HasPrefix(store, "http://") || strings.HasPrefix(store, "https://") {
		ctx, giveUp := context.WithCancelCause(ctx)
		f := &zimage.Fetcher{Mirrors: []string{store}, HTTP: &http.Client{Timeout: mirrorTimeout, Transport: impatient{giveUp}}, Log: slog.New(slog.DiscardHandler)}
		r.hint = func(digest, platform string) (zimage.Hint, error) { return f.Hint(ctx, digest, platform) }
		r.manifest = func(id string) (zimage.Manifest, error) { return f.Manifest(ctx, id) }
		note("note: which image a reference became, %s says; convert it yourself to be sure", store)
		return r, nil
	}
	if store == "" {
		return r, nil
	}
	s, err := openStore(store)
	if err != nil {
		return nil, imageError(fmt.Errorf("chunk %w", err))
	}
	r.hint, r.manifest = s.Hint, s.Manifest
	return r, nil
}

// errStoreless is what an image in a document meets when no store is named.
var errStoreless = errors.New("images are looked up in a chunk store: give --store DIR or URL")

// impatient gives up at the first failure: a node waits for its mirror to
// come back, a person wants to hear of it.
type impatient struct{ giveUp context.CancelCauseFunc }

func (i impatient) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		i.giveUp(err)
	}
	return resp, err
}

// code is the exit code for a document that was refused: it makes a
// difference to a script whether the document or the world is wrong.
func (r *resolver) code() int {
	switch {
	case errors.Is(r.cause, errStoreless):
		return exitUsage
	case offline(r.cause):
		return exitUnreachable
	case errors.Is(r.cause, fs.ErrNotExist), errors.Is(r.cause, zimage.ErrMissing):
		return exitNotFound
	}
	return exitRefused
}

// File hashes a file.
func (r *resolver) File(ref string) (digest string, err error) {
	defer func() { r.cause = err }()
	f, err := openRegular(r.path(ref), "what the guest starts with")
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return "sha256:" + hex.EncodeToString(h.Sum(nil)), nil
}

func (r *resolver) path(p string) string {
	if filepath.IsAbs(p) {
		return p
	}
	return filepath.Join(r.dir, p)
}

// Image asks the source for the digest of the image manifest and the store
// for the Zero-Image that was made of it.
func (r *resolver) Image(ref, platform string) (_ render.ResolvedImage, err error) {
	defer func() { r.cause = err }()
	none := render.ResolvedImage{}
	if r.store == "" {
		return none, errStoreless
	}
	digest, err := r.manifestDigest(ref, platform)
	if err != nil {
		return none, err
	}
	hint, err := r.hint(digest, platform)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, zimage.ErrMissing) {
		return none, fmt.Errorf("%s for %s is not in the store %s: convert it first (zos image convert): %w", digest, platform, r.store, err)
	} else if err != nil {
		return none, err
	}
	m, err := r.manifest(hint.ID)
	if err != nil {
		return none, fmt.Errorf("image %s: %w", hint.ID, err)
	}
	// The hint may lie, the manifest cannot: its id is its hash.
	if m.OCI.Manifest != digest || m.OCI.Platform != platform || m.Verity.Root != hint.VerityRoot {
		return none, fmt.Errorf("the store says that %s is image %s, which was made of %s for %s", digest, hint.ID, m.OCI.Manifest, m.OCI.Platform)
	}
	env, err := environment(m.Config.Env)
	if err != nil {
		return none, err
	}
	return render.ResolvedImage{
		Image:      spec.Image{OCI: digest, Platform: platform, ID: hint.ID, VerityRoot: m.Verity.Root},
		Args:       slices.Concat(m.Config.Entrypoint, m.Config.Cmd),
		Env:        env,
		Cwd:        m.Config.WorkingDir,
		User:       m.Config.User,
		StopSignal: m.Config.StopSignal,
	}, nil
}

// manifestDigest names the image manifest for the platform. A tag is asked
// for once, here, and the author hears what it meant.
func (r *resolver) manifestDigest(ref, platform string) (string, error) {
	for _, kind := range []string{"oci:", "docker-archive:"} {
		if path, ok := strings.CutPrefix(ref, kind); ok {
			if err := regularArchive(kind + r.path(path)); err != nil {
				return "", err
			}
			return oci.Resolve(r.ctx, kind+r.path(path), platform)
		}
	}
	_, digest, named := strings.Cut(ref, "@")
	if named {
		// What was converted already needs no registry.
		if _, err := r.hint(digest, platform); err == nil {
			return digest, nil
		}
	}
	digest, err := oci.Resolve(r.ctx, ref, platform)
	if err == nil && !named {
		r.note("note: %s is a tag; today it means %s for %s", ref, digest, platform)
	}
	return digest, err
}

// environment turns "NAME=value" lines into a map; the last one of a name
// counts, as it does for a process.
func environment(lines []string) (map[string]string, error) {
	env := map[string]string{}
	for _, line := range lines {
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			return nil, fmt.Errorf("the image's environment has %q, want NAME=value", line)
		}
		env[name] = value
	}
	return env, nil
}

// pairs shows labels in the order of their names.
func pairs(labels map[string]string) string {
	var all []string
	for _, k := range slices.Sorted(maps.Keys(labels)) {
		all = append(all, k+"="+labels[k])
	}
	if all == nil {
		return ""
	}
	return " with " + strings.Join(all, ", ")
}
