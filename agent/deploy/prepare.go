// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/agent/imaged/trace"
	"github.com/zos-node/zos/agent/phase"
	"github.com/zos-node/zos/agent/plan"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/zimage"
)

// fetchMetadata gets the manifest of every image and holds it against what
// the spec says of it.
func (l *Life) fetchMetadata(ctx context.Context, out *phase.Out) error {
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	var total int64
	for _, m := range l.spec.Machines {
		id := m.Image.ID
		if _, have := l.manifests[id]; have {
			continue
		}
		man, err := l.world.Content.ManifestAhead(ctx, id, func(m zimage.Manifest) bool { return l.world.Images.Serves(m.DiskSize) })
		if err != nil {
			return fmt.Errorf("machine %s: manifest %s: %w", m.Name, id, err)
		}
		if err := agrees(m.Image, man); err != nil {
			return fmt.Errorf("machine %s: image %s: %w", m.Name, id, err)
		}
		l.manifests[id] = man
		total += man.DiskSize
		out.Digest("image/"+m.Name, id)
		b, err := man.Encode()
		if err != nil {
			return fmt.Errorf("manifest %s: %w", id, err)
		}
		out.Bytes += int64(len(b))
	}
	out.Detail = fmt.Sprintf("%d images, %d MiB of disk", len(l.manifests), total>>20)
	return nil
}

func agrees(want spec.Image, m zimage.Manifest) error {
	switch {
	case m.OCI.Manifest != want.OCI:
		return fmt.Errorf("was made of %s, the spec names %s", m.OCI.Manifest, want.OCI)
	case m.OCI.Platform != want.Platform:
		return fmt.Errorf("is for %s, the spec names %s", m.OCI.Platform, want.Platform)
	case m.Verity.Root != want.VerityRoot:
		return fmt.Errorf("has verity root %s, the spec names %s", m.Verity.Root, want.VerityRoot)
	case m.Format < zimage.OldestFormat || m.Format > zimage.Format:
		return fmt.Errorf("has format %d, this node knows %d to %d", m.Format, zimage.OldestFormat, zimage.Format)
	}
	return nil
}

// fetchContent makes sure that everything that will run is on the node, or,
// of a large image, its beginning, while the rest is being fetched (package
// imaged). What is there already is hashed again: a cache is no reason to skip
// a check.
func (l *Life) fetchContent(ctx context.Context, out *phase.Out) error {
	l.aheadDone() // what it has not begun is begun here
	ctx, cancel := context.WithTimeout(ctx, fetchTimeout)
	defer cancel()
	blobs := map[string]bool{}
	for _, m := range l.spec.Machines {
		l.world.Images.Use(l.st.Deployment, m.Image.ID)
		blobs[m.Kernel], blobs[m.Initramfs] = true, true
		out.Digest("kernel/"+m.Name, m.Kernel)
		out.Digest("initramfs/"+m.Name, m.Initramfs)
		out.Digest("verity/"+m.Name, m.Image.VerityRoot)
	}
	type piece struct {
		what string
		get  func(context.Context) (int64, error)
	}
	var pieces []piece
	for _, digest := range slices.Sorted(maps.Keys(blobs)) {
		pieces = append(pieces, piece{"blob " + digest, func(ctx context.Context) (int64, error) { return l.world.Content.Blob(ctx, digest) }})
	}
	for _, id := range slices.Sorted(maps.Keys(l.manifests)) {
		if m := l.manifests[id]; l.world.Images.Serves(m.DiskSize) {
			if s := trace.Last(l.world.Ledger.State(), id, m); s != nil {
				l.world.Images.Hint(id, s.Blocks)
			}
		}
		pieces = append(pieces, piece{"image " + id, func(ctx context.Context) (int64, error) { return l.world.Images.Image(ctx, l.manifests[id], id) }})
	}
	// Two at a time: hashing again what is here keeps one processor busy, and
	// one mirror's pause is the other's turn.
	var bytes atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(2)
	for _, p := range pieces {
		g.Go(func() error {
			n, err := p.get(ctx)
			bytes.Add(n)
			if err != nil {
				return fullHere(fmt.Errorf("%s: %w", p.what, err))
			}
			return nil
		})
	}
	err := g.Wait()
	if out.Bytes = bytes.Load(); err != nil {
		return err
	}
	use, err := l.world.Content.Usage()
	if err != nil {
		return err
	}
	out.Detail = fmt.Sprintf("%d blobs and %d images verified, %d bytes from mirrors; %s", len(blobs), len(l.manifests), out.Bytes, use) + l.world.Images.Arriving()
	return nil
}

// fullHere marks what another node, with more room, can try.
func fullHere(err error) error {
	if errors.Is(err, zimage.ErrNoRoom) {
		return onlyHere(err)
	}
	return err
}

// pin keeps what the spec names in the store, from when it is known until the
// claim is closed.
func (l *Life) pin() error {
	var paths []string
	c := l.world.Content
	for _, m := range l.spec.Machines {
		paths = append(paths, c.BlobPath(m.Kernel), c.BlobPath(m.Initramfs), c.ImagePath(m.Image.ID))
	}
	return fullHere(c.Pin(l.st.Deployment, paths...))
}

// undoContent gives the content free. It may stay in the cache until its room
// is needed.
func (l *Life) undoContent(ctx context.Context) error {
	if err := l.world.Images.Release(ctx, l.st.Deployment); err != nil {
		return err
	}
	return l.world.Content.Unpin(l.st.Deployment)
}

func (l *Life) plan(_ context.Context, out *phase.Out) error {
	p, err := plan.Make(l.spec, l.manifests, l.facts())
	if err != nil {
		return err
	}
	for _, m := range p.Machines {
		if err := m.VM.Validate(); err != nil {
			return fmt.Errorf("machine %s: %w", m.Name, err)
		}
	}
	digest, err := p.Digest()
	if err != nil {
		return err
	}
	out.Digest("plan", digest)
	out.Detail = fmt.Sprintf("%d machines, %d networks, %d gateways, %d volumes", len(p.Machines), len(p.Network.Networks), len(p.Network.Gateways), len(p.Volumes))
	return l.update(func(s *State) { s.Plan = p })
}

// planned is the plan, nil before its phase.
func (l *Life) planned() *plan.Plan {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.st.Plan
}

func (l *Life) network(_ context.Context, out *phase.Out) error {
	p := l.planned()
	for _, n := range p.Network.Networks {
		out.Detail += fmt.Sprintf("%s: %s on %s, %d taps; ", n.Name, n.Host, n.Bridge, len(n.Taps))
	}
	if err := l.world.Network.Conflict(l.st.Deployment, &p.Network); err != nil {
		return onlyHere(err)
	}
	return l.world.Network.Set(l.st.Deployment, &p.Network)
}

func (l *Life) undoNetwork(context.Context) error {
	p := l.planned()
	if p == nil {
		return nil
	}
	return l.world.Network.Remove(l.st.Deployment, &p.Network)
}

func (l *Life) volumes(_ context.Context, out *phase.Out) error {
	var total int64
	for _, v := range l.planned().Volumes {
		total += v.SizeMiB
	}
	if total > 0 { // what was fetched since may have taken it
		if err := l.world.Content.Room(total); err != nil {
			return onlyHere(err)
		}
	}
	for _, v := range l.planned().Volumes {
		if err := v.Create(); err != nil {
			return err
		}
	}
	out.Detail = fmt.Sprintf("%d volumes, %d MiB", len(l.planned().Volumes), total)
	return nil
}

func (l *Life) undoVolumes(context.Context) error {
	p := l.planned()
	if p == nil {
		return nil
	}
	var errs []error
	for _, v := range p.Volumes {
		errs = append(errs, v.Delete())
	}
	return errors.Join(errs...)
}
