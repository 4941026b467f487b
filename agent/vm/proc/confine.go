// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Rule lets the VMM at a file, or at a folder with all that is in it.
type Rule struct {
	Path     string
	Write    bool
	Exec     bool // of programs and libraries
	Optional bool // need not exist
}

// Rights of Landlock ABI 3, the least that is accepted (Linux 6.2).
const (
	readRights  = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_READ_DIR
	writeRights = unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_REMOVE_DIR | unix.LANDLOCK_ACCESS_FS_REMOVE_FILE |
		unix.LANDLOCK_ACCESS_FS_MAKE_DIR | unix.LANDLOCK_ACCESS_FS_MAKE_REG | unix.LANDLOCK_ACCESS_FS_MAKE_SOCK |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	handledRights = readRights | writeRights | unix.LANDLOCK_ACCESS_FS_EXECUTE | unix.LANDLOCK_ACCESS_FS_MAKE_CHAR |
		unix.LANDLOCK_ACCESS_FS_MAKE_FIFO | unix.LANDLOCK_ACCESS_FS_MAKE_BLOCK | unix.LANDLOCK_ACCESS_FS_MAKE_SYM |
		unix.LANDLOCK_ACCESS_FS_REFER
	// fileRights are those that mean something for a path that is no folder;
	// the kernel refuses a rule with others.
	fileRights = unix.LANDLOCK_ACCESS_FS_READ_FILE | unix.LANDLOCK_ACCESS_FS_WRITE_FILE | unix.LANDLOCK_ACCESS_FS_EXECUTE |
		unix.LANDLOCK_ACCESS_FS_TRUNCATE
	leastABI = 3
	netABI   = 4 // the first that knows TCP
	ruleNet  = 2 // LANDLOCK_RULE_NET_PORT, which x/sys does not have
)

// rulesetAttr is struct landlock_ruleset_attr. Older kernels know a shorter
// one and accept the longer as long as the rest is zero.
type rulesetAttr struct{ fs, net, scoped uint64 }

// confined runs fork on a thread that may do almost nothing any more, and
// ends that thread. What it restricts are attributes of one thread, and a
// child inherits those of the thread that forks it. So the VMM has, from its
// first instruction and without a launcher in between, no_new_privs, an empty
// capability bounding set (it is uid 0 without a single capability) and a
// Landlock ruleset; the agent's other threads keep theirs.
func confined(rules []Rule, connect []uint16, fork func() (int, error)) (abi, pid int, err error) {
	done := make(chan struct{})
	go onThread(func() {
		defer close(done)
		if abi, err = restrictThread(rules, connect); err == nil {
			pid, err = fork()
		}
	})
	<-done
	return abi, pid, err
}

// onThread runs f on a thread that ends with it: the runtime ends a thread
// whose goroutine ends locked. The program's first thread cannot end, and its
// state is what /proc shows for the agent; while it is held here, f can only
// get another.
func onThread(f func()) {
	runtime.LockOSThread()
	if unix.Gettid() != unix.Getpid() {
		f()
		return
	}
	held := make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(held)
		f()
	}()
	<-held
	runtime.UnlockOSThread()
}

func restrictThread(rules []Rule, connect []uint16) (abi int, err error) {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return 0, fmt.Errorf("no_new_privs: %w", err)
	}
	ruleset, abi, err := makeRuleset()
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Close(ruleset)) }()
	for _, r := range rules {
		if err := addRule(ruleset, r); err != nil {
			return 0, fmt.Errorf("landlock rule for %s: %w", r.Path, err)
		}
	}
	if abi >= netABI {
		for _, port := range connect {
			if err := addPort(ruleset, port); err != nil {
				return 0, fmt.Errorf("landlock rule for TCP port %d: %w", port, err)
			}
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, uintptr(ruleset), 0, 0); e != 0 {
		return 0, fmt.Errorf("landlock: %w", e)
	}
	// Exec computes what a program of uid 0 may do from the bounding set, so an
	// empty one leaves it nothing. This thread keeps what it has: fork needs it
	// for the namespaces.
	for c := uintptr(0); ; c++ {
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0); errors.Is(err, unix.EINVAL) {
			break // behind the last capability that this kernel knows
		} else if err != nil {
			return 0, fmt.Errorf("drop capability %d: %w", c, err)
		}
	}
	return abi, nil
}

// makeRuleset refuses files from ABI 3 on, TCP from 4, abstract sockets and
// signals to the outside from 6.
func makeRuleset() (fd, abi int, err error) {
	n, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION)
	if e != 0 {
		return -1, 0, fmt.Errorf("landlock is not there (lsm=landlock,…?): %w", e)
	}
	abi = int(n)
	if abi < leastABI {
		return -1, 0, fmt.Errorf("landlock ABI %d, need %d", abi, leastABI)
	}
	attr := rulesetAttr{fs: handledRights}
	size := unsafe.Sizeof(attr.fs)
	if abi >= netABI {
		attr.net = unix.LANDLOCK_ACCESS_NET_BIND_TCP | unix.LANDLOCK_ACCESS_NET_CONNECT_TCP
		size += unsafe.Sizeof(attr.net)
	}
	if abi >= 6 {
		attr.scoped = unix.LANDLOCK_SCOPE_ABSTRACT_UNIX_SOCKET | unix.LANDLOCK_SCOPE_SIGNAL
		size += unsafe.Sizeof(attr.scoped)
	}
	r, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&attr)), size, 0)
	if e != 0 {
		return -1, 0, fmt.Errorf("landlock ruleset: %w", e)
	}
	return int(r), abi, nil
}

func addRule(ruleset int, r Rule) (err error) {
	fd, err := unix.Open(r.Path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if r.Optional && errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unix.Close(fd)) }()
	info, err := os.Stat(r.Path)
	if err != nil {
		return err
	}
	// struct landlock_path_beneath_attr is packed: 8 bytes and then 4.
	attr := struct {
		allowed uint64
		parent  int32
	}{allowed: r.rights(info.IsDir()), parent: int32(fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

// addPort lets connect to a TCP port.
func addPort(ruleset int, port uint16) error {
	attr := struct{ allowed, port uint64 }{unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, uint64(port)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), ruleNet,
		uintptr(unsafe.Pointer(&attr)), 0, 0, 0); e != 0 {
		return e
	}
	return nil
}

func (r Rule) rights(dir bool) uint64 {
	rights := uint64(readRights)
	if r.Write {
		rights |= writeRights
	}
	if r.Exec {
		rights |= unix.LANDLOCK_ACCESS_FS_EXECUTE
	}
	if !dir {
		rights &= fileRights
	}
	return rights
}
