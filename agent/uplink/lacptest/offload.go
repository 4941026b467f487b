// SPDX-License-Identifier: Apache-2.0

package lacptest

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// NoOffload has a link of the calling thread's namespace finish its checksums
// itself: a veth leaves that to nobody, so frames that a program carries on
// would arrive broken.
func NoOffload(name string) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	value := struct{ cmd, data uint32 }{unix.ETHTOOL_STXCSUM, 0}
	request := struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte // ifreq is larger than its pointer
	}{data: unsafe.Pointer(&value)}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(&value)
	if err := unix.Close(fd); err != nil {
		return err
	}
	if errno != 0 {
		return fmt.Errorf("checksum offload of %s: %w", name, errno)
	}
	return nil
}
