// SPDX-License-Identifier: Apache-2.0

package powercut

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"maps"
	"os"
	"slices"
	"strconv"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// Mount shows the disk at a folder until unmount is called, when nobody has a
// file of it open any more. It calls mount(2) itself: root of a namespace of
// users and mounts may, and then nothing is left behind when that ends.
func (d *Disk) Mount(at string) (unmount func() error, err error) {
	d.mu.Lock()
	root := &item{disk: d, node: d.root}
	d.mu.Unlock()
	quiet := log.New(io.Discard, "", 0) // it says that the kernel hangs up at an unmount
	srv, err := fs.Mount(at, root, &fs.Options{
		MountOptions: fuse.MountOptions{DirectMountStrict: true, FsName: "powercut", Name: "powercut", DisableXAttrs: true, Logger: quiet},
		// The kernel remembers nothing: no name, no attribute, and no page, since
		// every file is opened for direct reads and writes.
		EntryTimeout: nil, AttrTimeout: nil, NegativeTimeout: nil,
		Logger: quiet,
	})
	if err != nil {
		return nil, fmt.Errorf("mount the disk at %s: %w", at, err)
	}
	if err := private(); err != nil {
		return nil, errors.Join(err, srv.Unmount())
	}
	return srv.Unmount, nil
}

// private keeps the connection to the kernel out of programs that are started
// from here: one that is killed while it waits for an answer would keep itself
// waiting, because the kernel ends a connection when nobody has it open.
func private() error {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return fmt.Errorf("list open files: %w", err)
	}
	for _, f := range list {
		if to, err := os.Readlink("/proc/self/fd/" + f.Name()); err == nil && to == "/dev/fuse" {
			fd, err := strconv.Atoi(f.Name())
			if err != nil {
				return fmt.Errorf("list open files: %w", err)
			}
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}

// item is a node as FUSE sees it.
type item struct {
	fs.Inode
	disk *Disk
	node *node
}

// handle is an open file.
type handle struct{ atEnd, sync bool }

var (
	_ fs.NodeLookuper  = (*item)(nil)
	_ fs.NodeReaddirer = (*item)(nil)
	_ fs.NodeGetattrer = (*item)(nil)
	_ fs.NodeSetattrer = (*item)(nil)
	_ fs.NodeOpener    = (*item)(nil)
	_ fs.NodeCreater   = (*item)(nil)
	_ fs.NodeMkdirer   = (*item)(nil)
	_ fs.NodeUnlinker  = (*item)(nil)
	_ fs.NodeRmdirer   = (*item)(nil)
	_ fs.NodeRenamer   = (*item)(nil)
	_ fs.NodeReader    = (*item)(nil)
	_ fs.NodeWriter    = (*item)(nil)
	_ fs.NodeFsyncer   = (*item)(nil)
)

func (n *node) kind() uint32 {
	if n.folder {
		return syscall.S_IFDIR
	}
	return syscall.S_IFREG
}

func (n *node) attr(out *fuse.Attr) {
	*out = fuse.Attr{Ino: n.ino, Size: uint64(len(n.data)), Blocks: uint64(len(n.data)+511) / 512, Mode: n.kind() | n.mode, Nlink: 1, Blksize: 4096}
}

// inode makes what the kernel knows a node by.
func (i *item) inode(ctx context.Context, n *node, out *fuse.EntryOut) *fs.Inode {
	n.attr(&out.Attr)
	return i.NewInode(ctx, &item{disk: i.disk, node: n}, fs.StableAttr{Mode: n.kind(), Ino: n.ino})
}

func (i *item) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, errno
	}
	defer i.disk.mu.Unlock()
	kid := i.node.kids[name]
	if kid == nil {
		return nil, syscall.ENOENT
	}
	return i.inode(ctx, kid, out), 0
}

func (i *item) Readdir(context.Context) (fs.DirStream, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, errno
	}
	defer i.disk.mu.Unlock()
	var list []fuse.DirEntry
	for _, name := range slices.Sorted(maps.Keys(i.node.kids)) {
		list = append(list, fuse.DirEntry{Name: name, Ino: i.node.kids[name].ino, Mode: i.node.kids[name].kind()})
	}
	return fs.NewListDirStream(list), 0
}

func (i *item) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	if errno := i.disk.enter(); errno != 0 {
		return errno
	}
	defer i.disk.mu.Unlock()
	i.node.attr(&out.Attr)
	return 0
}

func (i *item) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if errno := i.disk.enter(); errno != 0 {
		return errno
	}
	defer i.disk.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		i.disk.write(i.node, write{off: int64(size), cut: true})
	}
	if mode, ok := in.GetMode(); ok {
		i.node.mode = mode & 0o7777
	}
	i.node.attr(&out.Attr)
	return 0
}

func (i *item) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, 0, errno
	}
	defer i.disk.mu.Unlock()
	if flags&syscall.O_TRUNC != 0 {
		i.disk.write(i.node, write{cut: true})
	}
	return opened(flags), fuse.FOPEN_DIRECT_IO, 0
}

func opened(flags uint32) *handle {
	return &handle{atEnd: flags&syscall.O_APPEND != 0, sync: flags&(syscall.O_SYNC|syscall.O_DSYNC) != 0}
}

func (i *item) Create(ctx context.Context, name string, flags, mode uint32, out *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, nil, 0, errno
	}
	defer i.disk.mu.Unlock()
	n := i.disk.make(i.node, name, false, mode)
	return i.inode(ctx, n, out), opened(flags), fuse.FOPEN_DIRECT_IO, 0
}

// make puts a new node into a folder, as seen.
func (d *Disk) make(in *node, name string, folder bool, mode uint32) *node {
	n := d.node(folder, mode&0o7777)
	in.kids[name] = n
	d.change(change{{in, name, n}})
	return n
}

func (i *item) Mkdir(ctx context.Context, name string, mode uint32, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, errno
	}
	defer i.disk.mu.Unlock()
	return i.inode(ctx, i.disk.make(i.node, name, true, mode), out), 0
}

func (i *item) Unlink(_ context.Context, name string) syscall.Errno {
	if errno := i.disk.enter(); errno != 0 {
		return errno
	}
	defer i.disk.mu.Unlock()
	if i.node.kids[name] == nil {
		return syscall.ENOENT
	}
	delete(i.node.kids, name)
	i.disk.change(change{{i.node, name, nil}})
	return 0
}

func (i *item) Rmdir(ctx context.Context, name string) syscall.Errno {
	if errno := i.disk.enter(); errno != 0 {
		return errno
	}
	kid := i.node.kids[name]
	i.disk.mu.Unlock()
	if kid != nil && len(kid.kids) > 0 {
		return syscall.ENOTEMPTY
	}
	return i.Unlink(ctx, name)
}

func (i *item) Rename(_ context.Context, name string, parent fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	to, ok := parent.(*item)
	if !ok || flags != 0 {
		return syscall.EINVAL
	}
	if errno := i.disk.enter(); errno != 0 {
		return errno
	}
	defer i.disk.mu.Unlock()
	n := i.node.kids[name]
	if n == nil {
		return syscall.ENOENT
	}
	delete(i.node.kids, name)
	to.node.kids[newName] = n
	i.disk.change(change{{i.node, name, nil}, {to.node, newName, n}})
	return 0
}

func (i *item) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	if errno := i.disk.enter(); errno != 0 {
		return nil, errno
	}
	defer i.disk.mu.Unlock()
	from := i.node.data[min(off, int64(len(i.node.data))):]
	return fuse.ReadResultData(dest[:copy(dest, from)]), 0
}

func (i *item) Write(_ context.Context, f fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	h, ok := f.(*handle)
	if !ok {
		return 0, syscall.EBADF
	}
	if errno := i.disk.enter(); errno != 0 {
		return 0, errno
	}
	if h.atEnd {
		off = int64(len(i.node.data))
	}
	i.disk.write(i.node, write{off: off, data: slices.Clone(data)})
	i.disk.mu.Unlock()
	var errno syscall.Errno
	if h.sync {
		errno = i.disk.sync(i.node)
	}
	return uint32(len(data)), errno
}

// Fsync is that of files and of folders.
func (i *item) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	return i.disk.sync(i.node)
}
