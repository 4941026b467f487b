// SPDX-License-Identifier: Apache-2.0

package dm

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// From <linux/dm-ioctl.h>. A call's argument is a header of 312 bytes with the
// payload behind it, all in the machine's own byte order.
const (
	headerSize = 312
	specSize   = 40 // struct dm_target_spec
	bufferSize = 16 << 10

	nameOffset  = 48
	nameSize    = 128
	flagsOffset = 28
	devOffset   = 40
	countOffset = 20

	flagReadOnly    = 1 << 0
	flagStatusTable = 1 << 4
	flagBufferFull  = 1 << 8
	flagSecure      = 1 << 15 // the kernel wipes its copy

	commandCreate  = 3
	commandRemove  = 4
	commandSuspend = 6 // resume, without the suspend flag
	commandLoad    = 9
	commandStatus  = 12
)

// request number of a command: _IOWR(0xfd, command, struct dm_ioctl).
func request(command uintptr) uintptr {
	return 3<<30 | headerSize<<16 | 0xfd<<8 | command
}

// encode lays out a call's argument.
func encode(name string, flags uint32, payload []byte, targets uint32) ([]byte, error) {
	if name == "" || len(name) >= nameSize {
		return nil, fmt.Errorf("device name %q", name)
	}
	if headerSize+len(payload) > bufferSize {
		return nil, fmt.Errorf("table of %d bytes", len(payload))
	}
	b := make([]byte, bufferSize)
	n := binary.NativeEndian
	n.PutUint32(b[0:], 4) // version 4.0.0: the oldest that has all this
	n.PutUint32(b[12:], bufferSize)
	n.PutUint32(b[16:], headerSize)
	n.PutUint32(b[countOffset:], targets)
	n.PutUint32(b[flagsOffset:], flags)
	copy(b[nameOffset:], name)
	copy(b[headerSize:], payload)
	return b, nil
}

// target is a struct dm_target_spec with its parameters, padded to 8 bytes.
func target(sectors uint64, kind, table string) []byte {
	b := make([]byte, specSize, specSize+len(table)+8)
	n := binary.NativeEndian
	n.PutUint64(b[0:], 0)
	n.PutUint64(b[8:], sectors)
	copy(b[24:specSize], kind)
	b = append(b, table...)
	b = append(b, 0)
	for len(b)%8 != 0 {
		b = append(b, 0)
	}
	n.PutUint32(b[20:], uint32(len(b))) // where the next target would begin
	return b
}

// decodeTarget reads the first target of a status answer.
func decodeTarget(b []byte) (start, length uint64, kind, text string, err error) {
	n := binary.NativeEndian
	if len(b) < headerSize {
		return 0, 0, "", "", errors.New("answer is shorter than its header")
	}
	begin := n.Uint32(b[16:])
	if c := n.Uint32(b[countOffset:]); c != 1 {
		return 0, 0, "", "", fmt.Errorf("%d targets, want one", c)
	}
	if n.Uint32(b[flagsOffset:])&flagBufferFull != 0 || uint64(begin)+specSize > uint64(len(b)) {
		return 0, 0, "", "", errors.New("answer is cut")
	}
	t := b[begin:]
	kind, _ = cut(t[24:specSize])
	text, ok := cut(t[specSize:])
	if !ok {
		return 0, 0, "", "", errors.New("answer is cut")
	}
	return n.Uint64(t[0:]), n.Uint64(t[8:]), kind, text, nil
}

// cut reads a string up to its NUL.
func cut(b []byte) (text string, ok bool) {
	i := bytes.IndexByte(b, 0)
	if i < 0 {
		return string(b), false
	}
	return string(b[:i]), true
}

func call(control int, command uintptr, b []byte) error {
	if _, _, e := unix.Syscall(unix.SYS_IOCTL, uintptr(control), request(command), uintptr(unsafe.Pointer(&b[0]))); e != 0 {
		return e
	}
	return nil
}
