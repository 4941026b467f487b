// SPDX-License-Identifier: Apache-2.0

package imaged

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// LazyFrom is the policy: a smaller disk, in bytes, is fetched whole. On a
// line of 100 Mbit/s it is here before a guest has booted.
const LazyFrom = 16 << 20

// Store is where images stand when they are whole; content.Store is one.
type Store interface {
	ImagePath(id string) string
	Image(ctx context.Context, m zimage.Manifest, id string) (int64, error)
	Arrive(ctx context.Context, m zimage.Manifest, id string) (path string, release func(), whole bool, err error)
	QuarantinePart(id string) error
	PackAhead(id string) *zimage.PackAhead
	Donors(m zimage.Manifest, id string) *zimage.Donors
	Examine(ctx context.Context, d *zimage.Donors)
}

// Images are the disks that machines start from, whole or on their way. Its
// methods may be called by several goroutines at once.
type Images struct {
	store  Store
	log    *slog.Logger
	launch *Launcher // nil: every image is fetched whole
	from   int64

	mu     sync.Mutex
	now    map[string]*arriving      // by image id
	past   map[*Served]bool          // whole by now, and what runs from them goes on; false when they are gone
	users  map[int64]map[string]bool // deployment -> image ids
	traces map[string]extent.List    // what the last start of an image read
}

// arriving is an image that is served.
type arriving struct {
	*Served
	release func()       // of the store
	still   sync.RWMutex // held to read while somebody is about to open the disk
	moved   bool         // out of now; guarded by still
}

// NewImages are those of a store. Without Lazy they are fetched whole.
func NewImages(store Store, log *slog.Logger) *Images {
	return &Images{store: store, log: log, now: map[string]*arriving{}, past: map[*Served]bool{}, users: map[int64]map[string]bool{}, traces: map[string]extent.List{}}
}

// Lazy has images of at least so many bytes served while they arrive, and
// takes up the servers of an earlier agent.
func (i *Images) Lazy(ctx context.Context, l *Launcher, from int64) error {
	found, err := l.Found()
	if err != nil {
		return err
	}
	for _, s := range found {
		if s.Detached() {
			i.mu.Lock()
			i.past[s] = true
			i.mu.Unlock()
			go i.bury(s)
			continue
		}
		_, release, whole, err := i.store.Arrive(ctx, s.Manifest(), s.ID())
		if err != nil {
			return err
		}
		if whole {
			release = func() {}
		}
		i.keep(&arriving{Served: s, release: release})
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.launch, i.from = l, from
	return nil
}

// Use says that a deployment needs an image until Release.
func (i *Images) Use(deployment int64, id string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.users[deployment] == nil {
		i.users[deployment] = map[string]bool{}
	}
	i.users[deployment][id] = true
}

// Release ends the deployment's use, when nothing of it runs any more. An
// image that nobody uses then arrives no further.
func (i *Images) Release(ctx context.Context, deployment int64) error {
	i.mu.Lock()
	var idle []*arriving
	ids := i.users[deployment]
	for id := range ids {
		if a := i.now[id]; a != nil && !i.used(id, deployment) {
			idle = append(idle, a)
		}
	}
	i.mu.Unlock()
	for _, a := range idle {
		if err := i.drop(ctx, a); err != nil {
			return err
		}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	for s, alive := range i.past { // nobody asks for it any more
		if ids[s.ID()] && !alive && !i.used(s.ID(), deployment) {
			delete(i.past, s)
		}
	}
	delete(i.users, deployment)
	return nil
}

// used says whether another deployment uses an image. i.mu is held.
func (i *Images) used(id string, but int64) bool {
	for d, ids := range i.users {
		if d != but && ids[id] {
			return true
		}
	}
	return false
}

// Hint says what a start of an image read elsewhere; what was seen here counts
// more.
func (i *Images) Hint(id string, start extent.List) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.traces[id] == nil {
		i.traces[id] = start
	}
}

// Serves says whether an image of so many bytes would be served here.
func (i *Images) Serves(bytes int64) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.launch != nil && bytes >= i.from
}

// Image makes sure that a machine can start from an image: the whole disk is
// here and right, or its beginning is and the rest is being fetched. It gives
// how many bytes mirrors had to send until now.
func (i *Images) Image(ctx context.Context, m zimage.Manifest, id string) (int64, error) {
	ahead := i.store.PackAhead(id)
	served := false
	defer func() {
		if !served {
			ahead.Close()
		}
	}()
	i.mu.Lock()
	launch, a, trace := i.launch, i.now[id], i.traces[id]
	i.mu.Unlock()
	if a != nil {
		select {
		case <-a.Whole(): // it is about to get its name
			return i.store.Image(ctx, m, id)
		case <-a.Ended():
			if err := i.drop(ctx, a); err != nil {
				return 0, err
			}
		default:
			return 0, a.Ready(ctx)
		}
	}
	if launch == nil || m.DiskSize < i.from || i.shown(id) {
		return i.store.Image(ctx, m, id)
	}
	path, release, whole, err := i.store.Arrive(ctx, m, id)
	if err != nil {
		return 0, err
	}
	if whole {
		return i.store.Image(ctx, m, id)
	}
	s, err := launch.ServeBeside(ctx, m, id, path, trace, Near{Pack: ahead, Donors: i.store.Donors(m, id), Examine: i.store.Examine})
	served = true
	if err != nil {
		release()
		return 0, err
	}
	a = i.keep(&arriving{Served: s, release: release})
	if err := s.Ready(ctx); err != nil {
		return s.Bytes(), errors.Join(err, i.drop(context.WithoutCancel(ctx), a))
	}
	return s.Bytes(), nil
}

// shown says whether an earlier server of an image still has readers.
func (i *Images) shown(id string) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for s, alive := range i.past {
		if s.ID() == id && alive {
			return true
		}
	}
	return false
}

func (i *Images) keep(a *arriving) *arriving {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.now[a.ID()] = a
	go i.finish(a)
	return a
}

// finish gives an image that has arrived its place in the store, once it was
// verified. What runs from the served disk goes on.
func (i *Images) finish(a *arriving) {
	select {
	case <-a.Whole():
	case <-a.Ended():
		return // whoever uses it next, or no more, drops it
	}
	a.still.Lock()
	defer a.still.Unlock()
	if a.moved {
		return
	}
	if err := a.Detach(); err != nil {
		a.log.Error("an image that has arrived is still served", "err", err)
		return
	}
	i.leave(a, true)
	ctx, cancel := context.WithTimeout(context.Background(), nameTimeout)
	defer cancel()
	if _, err := i.store.Image(ctx, a.Manifest(), a.ID()); err != nil {
		// The next start tries it again.
		a.log.Error("an image that has arrived is not right", "err", err)
	}
}

const nameTimeout = 10 * time.Minute

// leave takes a out of what new starts see; read says that what runs from it
// may go on. a.still is held.
func (i *Images) leave(a *arriving, read bool) {
	a.moved = true
	defer a.release()
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.now, a.ID())
	if t := a.Read(); len(t) > 0 {
		i.traces[a.ID()] = t // the next start wants the same first
	}
	if read {
		i.past[a.Served] = true
		go i.bury(a.Served)
	}
}

// bury waits for the end of a server and removes what is left of it.
func (i *Images) bury(s *Served) {
	<-s.process.Done()
	ctx, cancel := context.WithTimeout(context.Background(), killTimeout)
	defer cancel()
	if err := s.Kill(ctx); err != nil {
		s.log.Error("what is left of an image server", "err", err)
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	i.past[s] = false
}

const killTimeout = 20 * time.Second

// drop ends a server, and with it whatever still runs from it. What has
// arrived stays.
func (i *Images) drop(ctx context.Context, a *arriving) error {
	a.still.Lock()
	defer a.still.Unlock()
	if a.moved {
		return nil
	}
	if err := a.Kill(ctx); err != nil {
		return err
	}
	i.leave(a, false)
	return nil
}

// IsArriving says whether a served image is not whole yet.
func (i *Images) IsArriving(s *Served) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	a := i.now[s.ID()]
	return a != nil && a.Served == s
}

// Condemn takes out of use what has arrived of an image that a guest found
// wrong.
func (i *Images) Condemn(ctx context.Context, s *Served) error {
	i.mu.Lock()
	a := i.now[s.ID()]
	i.mu.Unlock()
	if a == nil || a.Served != s {
		return nil // it is whole by now: the file in the store is another matter
	}
	if err := i.drop(ctx, a); err != nil {
		return err
	}
	return i.store.QuarantinePart(s.ID())
}

// Disk is a disk that is about to be opened.
type Disk struct {
	Path   string
	Served *Served // nil when it is whole
	done   func()
}

// Done says that it was opened.
func (d Disk) Done() { d.done() }

// Disk is what a machine starts from now. The path is good until Done.
func (i *Images) Disk(id string) Disk {
	for {
		i.mu.Lock()
		a := i.now[id]
		i.mu.Unlock()
		if a == nil {
			return Disk{Path: i.store.ImagePath(id), done: func() {}}
		}
		a.still.RLock()
		if !a.moved {
			return Disk{Path: a.Path(), Served: a.Served, done: a.still.RUnlock}
		}
		a.still.RUnlock()
	}
}

// Running finds the server of a disk that an earlier agent started a machine
// from; nil when it was a whole file, ErrDied when nothing is known of it.
func (i *Images) Running(id, path string) (*Served, error) {
	if path == i.store.ImagePath(id) {
		return nil, nil
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	if a := i.now[id]; a != nil && a.Path() == path {
		return a.Served, nil
	}
	for s := range i.past {
		if s.ID() == id && s.Path() == path {
			return s, nil
		}
	}
	return nil, fmt.Errorf("%w: nothing is left of it", ErrDied)
}

// Arriving says how far images are that are served, for people; "" for none.
func (i *Images) Arriving() string {
	i.mu.Lock()
	defer i.mu.Unlock()
	text := ""
	for _, a := range i.now {
		text += fmt.Sprintf("; %s is served while it arrives, %d of %d chunks are missing", a.ID(), a.missingChunks(), len(a.Manifest().Chunks))
	}
	return text
}
