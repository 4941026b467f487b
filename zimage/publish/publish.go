// SPDX-License-Identifier: Apache-2.0

package publish

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
	"github.com/zos-node/zos/zimage/pack"
)

// Bucket is a place for files. Several goroutines use it at once.
type Bucket interface {
	// Size gives the length of a file; fs.ErrNotExist means that there is none.
	Size(ctx context.Context, name string) (int64, error)
	// Get reads a file, of whose bytes nothing is known.
	Get(ctx context.Context, name string) (io.ReadCloser, error)
	// Put makes a file appear, whole, and on disk.
	Put(ctx context.Context, o zimage.Object) error
}

// ErrTemporary is in an error after which the same request may succeed.
var ErrTemporary = errors.New("temporary")

const (
	parallel     = 8
	attempts     = 5
	firstBackoff = 200 * time.Millisecond
)

// Report says what was sent.
type Report struct {
	Sent      int64 `json:"sent"` // files
	SentBytes int64 `json:"sentBytes"`
	Replaced  int64 `json:"replaced"` // files sent over one of another length, or with other bytes
	Had       int64 `json:"had"`      // files that were there
	HadBytes  int64 `json:"hadBytes"`
}

type publication struct {
	to    Bucket
	check bool // read what is there

	mu          sync.Mutex
	report      Report
	done, total int64
	progress    func(done, total int64)
}

// Image publishes an image. A file that is there and as long as it must be is
// taken for the right one. progress, which may be nil, hears of the disk's
// bytes that are there, of how many in all.
func Image(ctx context.Context, from *zimage.Store, id string, to Bucket, progress func(done, total int64)) (Report, error) {
	return image(ctx, from, id, &publication{to: to, progress: progress})
}

// Check is Image, but reads each file that is there, and sends those whose
// bytes are others.
func Check(ctx context.Context, from *zimage.Store, id string, to Bucket, progress func(done, total int64)) (Report, error) {
	return image(ctx, from, id, &publication{to: to, check: true, progress: progress})
}

func image(ctx context.Context, from *zimage.Store, id string, p *publication) (Report, error) {
	m, last, err := from.ImageObjects(id)
	if err != nil {
		return Report{}, err
	}
	p.total = m.DiskSize
	g, work := errgroup.WithContext(ctx)
	g.SetLimit(parallel)
	seen := map[string]bool{}
	for _, c := range m.Chunks {
		if seen[c.ID] {
			p.advance(c.Size)
			continue
		}
		seen[c.ID] = true
		if work.Err() != nil {
			break
		}
		g.Go(func() error {
			defer p.advance(c.Size)
			want, err := from.ChunkObjectSize(c)
			if err != nil {
				return err
			}
			return p.missing(work, zimage.ChunkObjectName(c), want, func() (zimage.Object, error) { return from.ChunkObject(c) })
		})
	}
	if err := errors.Join(g.Wait(), ctx.Err()); err != nil {
		return p.report, fmt.Errorf("publish %s: %w", id, err)
	}
	for i, o := range last {
		// A hint's content may change, with the format, and not its length: it is read.
		hint := i == len(last)-1
		if err := p.lacking(ctx, o.Name, o.Size, p.check || hint, func() (zimage.Object, error) { return o, nil }); err != nil {
			return p.report, fmt.Errorf("publish %s: %w", id, err)
		}
	}
	return p.report, nil
}

// Blob publishes a kernel or initramfs.
func Blob(ctx context.Context, from *zimage.Store, digest string, to Bucket) (Report, error) {
	return blob(ctx, from, digest, &publication{to: to})
}

// CheckBlob is to Blob what Check is to Image.
func CheckBlob(ctx context.Context, from *zimage.Store, digest string, to Bucket) (Report, error) {
	return blob(ctx, from, digest, &publication{to: to, check: true})
}

func blob(ctx context.Context, from *zimage.Store, digest string, p *publication) (r Report, err error) {
	o, done, err := from.BlobObject(digest)
	if err != nil {
		return Report{}, err
	}
	defer func() { err = errors.Join(err, done()) }()
	err = p.missing(ctx, o.Name, o.Size, func() (zimage.Object, error) { return o, nil })
	return p.report, err
}

// StartPack publishes a start pack of an image that is there, made of what a start
// reads. It takes the place of an older one: its name does not follow from its
// content. progress, which may be nil, hears of the start's bytes.
func StartPack(ctx context.Context, from *zimage.Store, id string, start extent.List, to Bucket, progress func(done, total int64)) (Report, pack.Made, error) {
	o, made, err := from.StartPackObject(ctx, id, start, progress)
	if err != nil {
		return Report{}, made, err
	}
	p := &publication{to: to}
	err = p.send(ctx, o)
	return p.report, made, err
}

// missing sends a file that is not there, or that is there and wrong.
func (p *publication) missing(ctx context.Context, name string, want int64, open func() (zimage.Object, error)) error {
	return p.lacking(ctx, name, want, p.check, open)
}

// lacking is missing; read says that the bytes of a file that is there are compared.
func (p *publication) lacking(ctx context.Context, name string, want int64, read bool, open func() (zimage.Object, error)) error {
	var size int64
	err := retry(ctx, func() (err error) { size, err = p.to.Size(ctx, name); return err })
	there := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", name, err)
	}
	if there && size == want && !read {
		p.had(size)
		return nil
	}
	o, err := open()
	if err != nil {
		return err
	}
	if there && size == want {
		same := false
		if err := retry(ctx, func() (err error) { same, err = p.same(ctx, o); return err }); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		if same {
			p.had(size)
			return nil
		}
	}
	if err := p.send(ctx, o); err != nil || !there {
		return err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Replaced++
	return nil
}

func (p *publication) had(size int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Had++
	p.report.HadBytes += size
}

// same reads a file and holds it against the one that would be sent.
func (p *publication) same(ctx context.Context, o zimage.Object) (same bool, err error) {
	r, err := p.to.Get(ctx, o.Name)
	if errors.Is(err, fs.ErrNotExist) { // gone since it was asked for
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, io.LimitReader(r, o.Size+1)); err != nil {
		return false, fmt.Errorf("read: %w: %w", ErrTemporary, err)
	}
	return [sha256.Size]byte(sum.Sum(nil)) == o.Sum, nil
}

func (p *publication) send(ctx context.Context, o zimage.Object) error {
	err := retry(ctx, func() error {
		if _, err := o.Body.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		return p.to.Put(ctx, o)
	})
	if err != nil {
		return fmt.Errorf("%s: %w", o.Name, err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.report.Sent++
	p.report.SentBytes += o.Size
	return nil
}

func (p *publication) advance(n int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.done += n
	if p.progress != nil {
		p.progress(p.done, p.total)
	}
}

// retry asks again, with growing pauses, after an error that says that it is
// worth it.
func retry(ctx context.Context, do func() error) error {
	for i, wait := 1, firstBackoff; ; i, wait = i+1, 2*wait {
		err := do()
		if err == nil || i == attempts || !errors.Is(err, ErrTemporary) {
			return err
		}
		select {
		case <-ctx.Done():
			return errors.Join(err, ctx.Err())
		case <-time.After(wait/2 + rand.N(wait/2)):
		}
	}
}
