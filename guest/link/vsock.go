// SPDX-License-Identifier: Apache-2.0

package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/wire"
)

// connectTimeout of one attempt. The kernel's own is 2 s; a host that is
// there answers in microseconds, and one that is not is asked again.
const connectTimeout = 2 * time.Second

// DialHost connects to the agent's port. The connection is a plain file of
// the runtime's poller, which is all that the link needs.
func DialHost(context.Context) (io.ReadWriteCloser, error) {
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("vsock: %w", err)
	}
	timeout := unix.NsecToTimeval(connectTimeout.Nanoseconds())
	err = unix.SetsockoptTimeval(fd, unix.AF_VSOCK, unix.SO_VM_SOCKETS_CONNECT_TIMEOUT_NEW, &timeout)
	if err == nil {
		err = undisturbed(func() error { return unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: wire.Port}) })
	}
	if err == nil {
		err = unix.SetNonblock(fd, true)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("vsock: %w", err), unix.Close(fd))
	}
	return os.NewFile(uintptr(fd), "vsock"), nil
}

// undisturbed runs a system call on a thread that takes no signals: the kernel
// gives up a connection when one comes, and the runtime sends them to its own
// threads whenever it likes.
func undisturbed(call func() error) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("signal mask: %w", err)
	}
	defer func() { err = errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)) }()
	return call()
}
