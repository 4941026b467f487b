// SPDX-License-Identifier: Apache-2.0

package zimage

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"
)

// Fetcher brings images from mirrors to a node. It trusts no mirror: each
// piece is hashed before it is written. A wrong or missing piece is reported
// and asked of the next mirror; a mirror that does not answer is asked again,
// with growing pauses, until the context ends. While one is slow to send a
// chunk, another is asked too. Every method may be called again after a
// failure, or after a crash, and goes on where it stopped.
type Fetcher struct {
	Mirrors []string // base URLs, the preferred one first
	HTTP    *http.Client
	Log     *slog.Logger
	// Report, which may be nil, hears of each wrong (ErrMismatch) or missing
	// (ErrMissing) answer. It is called from several goroutines.
	Report func(mirror, what string, err error)

	packStall, packLate time.Duration // tests set them
}

// Manifest gets the manifest of an image id.
func (f *Fetcher) Manifest(ctx context.Context, id string) (Manifest, error) {
	h, err := hexOf(id)
	if err != nil {
		return Manifest{}, err
	}
	s, err := f.session()
	if err != nil {
		return Manifest{}, err
	}
	var m Manifest
	err = s.each(ctx, "manifest "+id, func(ctx context.Context, mirror string) error {
		b, err := s.manifest(ctx, mirror, "manifests/"+h+".json")
		if err != nil {
			return err
		}
		m, err = openManifest(id, b)
		return err
	})
	return m, err
}

// chunk gets one chunk and checks it.
func (s *session) chunk(ctx context.Context, c Chunk) ([]byte, error) {
	return s.chunkFrom(ctx, "chunk "+c.ID, func(ctx context.Context, mirror string) ([]byte, error) {
		wire, err := s.small(ctx, mirror, chunkName(c.ID), maxWire)
		if err != nil {
			return nil, err
		}
		return s.codec.unpack(wire, c)
	})
}

// Image brings the disk of a manifest, whose image id is id, to a file, and
// gives the number of bytes that mirrors sent for it. The file appears under
// its name only when it is whole and VerifyImage has found it right. Until
// then it is path+".part", beside path+".have", which says which chunks are
// worth hashing on the next attempt; that is all that it is believed.
func (f *Fetcher) Image(ctx context.Context, m Manifest, id, path string) (int64, error) {
	return f.ImageBeside(ctx, m, id, path, nil)
}

// ImageBeside is Image on a machine that has other images: no mirror is asked for
// a chunk that a donor has. near may be nil.
func (f *Fetcher) ImageBeside(ctx context.Context, m Manifest, id, path string, near *Donors) (int64, error) {
	b, err := m.Encode()
	if err != nil {
		return 0, err
	}
	if _, err := openManifest(id, b); err != nil {
		return 0, err
	}
	s, err := f.session()
	if err != nil {
		return 0, err
	}
	part, err := openPart(path, m)
	if err != nil {
		return 0, err
	}
	if !part.whole {
		err = fill(ctx, m.Chunks, part, func(ctx context.Context, c Chunk) ([]byte, error) {
			if b := near.Chunk(c); b != nil {
				return b, nil
			}
			return s.chunk(ctx, c)
		})
	}
	if err = errors.Join(err, part.close()); err != nil {
		return s.received(), fmt.Errorf("image %s: %w", id, err)
	}
	if part.whole {
		return 0, nil
	}
	if err := VerifyImage(part.name, m); err != nil {
		return s.received(), fmt.Errorf("image %s: %w", id, err)
	}
	return s.received(), part.finish(path)
}

// fill gets what the part does not have, and what stands in it twice once.
func fill(ctx context.Context, chunks []Chunk, p *part, get func(context.Context, Chunk) ([]byte, error)) error {
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	places := map[Chunk][]int{}
	for i, c := range chunks {
		places[c.content()] = append(places[c.content()], i)
	}
	for i, c := range chunks {
		same := places[c.content()]
		if i != same[0] {
			continue
		}
		if work.Err() != nil {
			break
		}
		g.Go(func() error {
			lacking := slices.DeleteFunc(slices.Clone(same), func(k int) bool { return p.holds(k, chunks[k]) })
			if len(lacking) == 0 {
				return nil
			}
			b, err := get(work, c)
			for _, k := range lacking {
				if err == nil {
					err = p.write(k, chunks[k], b)
				}
			}
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// content is a chunk wherever it stands.
func (c Chunk) content() Chunk { return Chunk{ID: c.ID, Size: c.Size} }

// part is a disk file on its way.
type part struct {
	name, state string // of the disk, and of what says which chunks are in it; "": every chunk is hashed
	file        *os.File
	whole       bool // the file was there already, and right

	mu   sync.Mutex
	have []byte // a bit per chunk
}

// openPart opens what an earlier attempt left, or a new file. A finished file
// is checked; one that fails becomes a part, of which the good chunks remain.
func openPart(path string, m Manifest) (*part, error) {
	p := &part{have: PackHave(make([]bool, len(m.Chunks)))}
	p.name, p.state = PartNames(path)
	switch _, err := os.Lstat(path); {
	case err == nil:
		switch err := VerifyImage(path, m); {
		case err == nil:
			p.whole = true
			return p, nil
		case !errors.Is(err, ErrMismatch):
			return nil, err
		}
		if err := errors.Join(os.Chmod(path, 0o600), os.Rename(path, p.name)); err != nil {
			return nil, fmt.Errorf("set wrong image aside: %w", err)
		}
		for i := range p.have {
			p.have[i] = 0xff
		}
	case !isMissing(err):
		return nil, fmt.Errorf("image file: %w", err)
	default:
		// An unreadable or odd state file only means that nothing is worth
		// hashing.
		if b, err := os.ReadFile(p.state); err == nil && len(b) == len(p.have) {
			p.have = b
		}
	}
	f, err := os.OpenFile(p.name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("image file: %w", err)
	}
	if err := f.Truncate(m.DiskSize); err != nil {
		return nil, errors.Join(fmt.Errorf("image file: %w", err), f.Close())
	}
	p.file = f
	return p, nil
}

// holds says whether a chunk is in the file, by its hash.
func (p *part) holds(i int, c Chunk) bool {
	p.mu.Lock()
	maybe := p.have[i/8]&(1<<(i%8)) != 0
	p.mu.Unlock()
	if !maybe {
		return false
	}
	b := make([]byte, c.Size)
	if _, err := p.file.ReadAt(b, c.Off); err == nil && checkChunk(b, c) == nil {
		return true
	}
	p.mu.Lock()
	p.have[i/8] &^= 1 << (i % 8)
	p.mu.Unlock()
	return false
}

// saveEvery is how many chunks an unclean end may cost.
const saveEvery = 16

// write puts a checked chunk in place.
func (p *part) write(i int, c Chunk, b []byte) error {
	if _, err := p.file.WriteAt(b, c.Off); err != nil {
		return fmt.Errorf("write image file: %w", err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.have[i/8] |= 1 << (i % 8)
	if i%saveEvery == 0 {
		return p.save()
	}
	return nil
}

func (p *part) save() error {
	if p.state == "" {
		return nil
	}
	if err := os.WriteFile(p.state, p.have, 0o600); err != nil {
		return fmt.Errorf("write image state: %w", err)
	}
	return nil
}

func (p *part) close() error {
	if p.file == nil {
		return nil
	}
	if err := errors.Join(p.save(), p.file.Close()); err != nil {
		return fmt.Errorf("close image file: %w", err)
	}
	return nil
}

// finish gives the file its name, read only.
func (p *part) finish(path string) error {
	err := errors.Join(os.Chmod(p.name, 0o444), os.Rename(p.name, path), os.Remove(p.state))
	if err != nil {
		return fmt.Errorf("finish image file: %w", err)
	}
	return nil
}

// Hint asks the mirrors which image an OCI manifest became. It is for
// authors: the answer is a mirror's word, nothing more.
func (f *Fetcher) Hint(ctx context.Context, oci, platform string) (Hint, error) {
	name, err := hintName(oci, platform)
	if err != nil {
		return Hint{}, err
	}
	s, err := f.session()
	if err != nil {
		return Hint{}, err
	}
	var h Hint
	err = s.each(ctx, "hint "+strings.TrimPrefix(name, "by-oci/"), func(ctx context.Context, mirror string) error {
		b, err := s.small(ctx, mirror, name, 1<<10)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &h); err != nil || !isDigest(h.ID) || !isHex(h.VerityRoot) {
			return fmt.Errorf("%w: not a hint", ErrMismatch)
		}
		return nil
	})
	return h, err
}
