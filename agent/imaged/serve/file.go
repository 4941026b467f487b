// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"errors"
	"io"
	"math"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/zimage/lazy"
)

// rootFile is a file system whose root is a regular file: the disk. It is
// mounted over a file, so that the disk has the same path as when it is whole.
type rootFile struct {
	fuse.RawFileSystem
	disk *lazy.Disk
	fd   uintptr // of the disk, to read
}

// forever is how long the kernel may keep what it knows: nothing of the file
// ever changes but that holes fill, and those are never read.
const forever = math.MaxInt32

// GetAttr says that there is a read-only file.
func (r *rootFile) GetAttr(_ <-chan struct{}, in *fuse.GetAttrIn, out *fuse.AttrOut) fuse.Status {
	if in.NodeId != fuse.FUSE_ROOT_ID {
		return fuse.ENOENT
	}
	out.AttrValid = forever
	out.Attr = fuse.Attr{Ino: fuse.FUSE_ROOT_ID, Size: uint64(r.disk.Size()), Blocks: uint64(r.disk.Size()+511) / 512, Mode: unix.S_IFREG | 0o444, Nlink: 1, Blksize: 4096}
	return fuse.OK
}

// Open lets read, and keeps what the kernel has in its page cache: all VMs of
// an image share that. Who closes the file does not ask here (Linux 5.16): this
// process has it open itself, and could not be killed while it waited for its own
// answer.
func (r *rootFile) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	if in.Flags&unix.O_ACCMODE != unix.O_RDONLY {
		return fuse.EROFS
	}
	out.OpenFlags = fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH
	return fuse.OK
}

// Read waits for what has not arrived. A reader that goes away, because its
// process is killed, is let go.
func (r *rootFile) Read(cancel <-chan struct{}, in *fuse.ReadIn, buf []byte) (fuse.ReadResult, fuse.Status) {
	off := int64(in.Offset)
	size := min(int64(len(buf)), r.disk.Size()-off)
	if size <= 0 {
		return fuse.ReadResultData(nil), fuse.OK
	}
	buf = buf[:size]
	if r.disk.Ready(off, size) {
		return fuse.ReadResultFd(r.fd, off, int(size)), fuse.OK
	}
	return fuse.ReadResultData(buf), r.wait(cancel, off, buf)
}

// wait reads what has to be brought first.
func (r *rootFile) wait(cancel <-chan struct{}, off int64, buf []byte) fuse.Status {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	go func() {
		select {
		case <-cancel:
			stop()
		case <-ctx.Done():
		}
	}()
	_, err := r.disk.ReadAt(ctx, buf, off)
	if err == nil || errors.Is(err, io.EOF) {
		return fuse.OK
	}
	<-cancel // for good, when the disk has failed; see the package's comment
	return fuse.EINTR
}

// StatFs is asked by whoever wants to know what file system this is.
func (r *rootFile) StatFs(_ <-chan struct{}, _ *fuse.InHeader, out *fuse.StatfsOut) fuse.Status {
	*out = fuse.StatfsOut{Bsize: 4096, Frsize: 4096, Blocks: uint64(r.disk.Size()) / 4096}
	return fuse.OK
}
