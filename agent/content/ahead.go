// SPDX-License-Identifier: Apache-2.0

package content

import (
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// freshFor is how long before its use a file may have been hashed ahead. It is
// far less than what lies between the check of a file and the last read of it
// in any case.
const freshFor = 15 * time.Second

// settled is how old a file's last change has to be: the kernel's stamps move in
// steps of up to 10 ms, and two changes within one would look like one.
const settled = 50 * time.Millisecond

// stamp is a file as it was when it was hashed. Whatever is written to a file,
// or done to its name, changes one of these.
type stamp struct {
	dev, ino     uint64
	size         int64
	mtime, ctime unix.Timespec
}

// fresh is a file that was found right, and when.
type fresh struct {
	stamp
	at time.Time
}

func stampOf(f *os.File) (stamp, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return stamp{}, err
	}
	return stamp{uint64(st.Dev), st.Ino, st.Size, st.Mtim, st.Ctim}, nil
}

// Ahead hashes blobs that are here, one after the other, for a Blob that is
// about to come: the ledger is deciding meanwhile whether this node may need
// them. It is a help and no more: what is wrong, or not here, or changed since,
// is Blob's to find. When ctx ends it goes on with no further one.
func (s *Store) Ahead(ctx context.Context, digests ...string) {
	for _, d := range digests {
		s.ahead(ctx, d)
	}
}

func (s *Store) ahead(ctx context.Context, digest string) {
	path := s.BlobPath(digest)
	release, err := s.take(ctx, path)
	if err != nil || ctx.Err() != nil {
		if err == nil {
			release()
		}
		return
	}
	defer release()
	f, err := os.Open(path)
	if err != nil {
		return
	}
	defer f.Close()
	before, err := stampOf(f)
	if err != nil || time.Since(time.Unix(before.ctime.Unix())) < settled || s.Check(f, Want{Digest: digest, Goroutines: 1}) != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ready[path] = fresh{before, s.Clock.Now()}
}

// hashed says whether Ahead has just found this very file right; it says so
// once. Whoever asks holds the path.
func (s *Store) hashed(path string) bool {
	s.mu.Lock()
	was, ok := s.ready[path]
	delete(s.ready, path)
	s.mu.Unlock()
	if !ok || s.Clock.Now().Sub(was.at).Abs() > freshFor {
		return false
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	now, err := stampOf(f)
	return err == nil && now == was.stamp
}
