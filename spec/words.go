// SPDX-License-Identifier: Apache-2.0

package spec

import (
	"encoding/base64"
	"path"
	"strings"
)

// Limits of a deployment. They bound what one entry can make a node do.
const (
	maxNetworks     = 16
	maxGateways     = 32
	maxVolumes      = 16
	maxMachines     = 16
	maxLabels       = 32
	maxRoles        = 16
	maxInterfaces   = 8
	maxMounts       = 32
	maxFiles        = 64
	maxArgs         = 256
	maxEnv          = 256
	maxCmdline      = 1024
	maxPath         = 1024
	maxID           = 1<<32 - 2 // 2^32-1 means "no change" to chown(2)
	maxWaitMs       = 3_600_000
	maxStopGraceMs  = 600_000
	minCheckMs      = 100
	maxLabelValue   = 128
	maxVolumeName   = 15 // the guest finds it by the disk serial "vol-<name>", 20 bytes at most
	digestPrefix    = "sha256:"
	digestHexDigits = 64
)

// capabilities are those that Linux knows, in the order of their numbers.
const capabilities = `CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP
CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER CAP_SYS_MODULE
CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE CAP_SYS_RESOURCE CAP_SYS_TIME
CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG
CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF CAP_CHECKPOINT_RESTORE`

// stopSignals are the signals that can ask a process to end.
const stopSignals = "SIGTERM SIGINT SIGQUIT SIGHUP SIGKILL SIGUSR1 SIGUSR2 SIGWINCH SIGABRT SIGALRM SIGPWR"

// cmdlineOwned are the words of the kernel command line that are not the
// author's: they decide what PID 1 is and which root it mounts.
const cmdlineOwned = "init rdinit root rootfstype rootflags ro rw noinitrd initrd --"

// cmdlineChars is what a kernel command line may hold besides letters and
// digits. Quotes are not in it: the kernel would read across spaces.
const cmdlineChars = " .,:;=_/-+@%#~!*[]()"

// reservedDirs hold the kernel's own file systems in every guest.
const reservedDirs = "/proc /sys /dev"

func oneOf(word, words string) bool {
	for w := range strings.FieldsSeq(words) {
		if w == word {
			return true
		}
	}
	return false
}

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
func alnum(c byte) bool { return lower(c) || digit(c) }
func upper(c byte) bool { return c >= 'A' && c <= 'Z' }

// every says whether all bytes of s satisfy ok; a byte of a character outside
// ASCII is given as it is and satisfies none of ours.
func every(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return true
}

// IsDNSLabel says whether s is RFC 1123's label, in small letters.
func IsDNSLabel(s string) bool {
	return s != "" && len(s) <= 63 && alnum(s[0]) && alnum(s[len(s)-1]) &&
		every(s, func(c byte) bool { return alnum(c) || c == '-' })
}

// labelKey names a label: like a DNS name, with a slash for a prefix.
func labelKey(s string) bool {
	return s != "" && len(s) <= 63 && alnum(s[0]) && alnum(s[len(s)-1]) &&
		every(s, func(c byte) bool { return alnum(c) || strings.IndexByte("-._/", c) >= 0 })
}

// printable text has no control characters and fits a line.
func printable(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return r < 0x20 || r >= 0x7f && r < 0xa0 || r == 0x2028 || r == 0x2029 }) < 0
}

func roleName(s string) bool {
	return s != "" && len(s) <= 32 && lower(s[0]) && every(s, func(c byte) bool { return alnum(c) || c == '-' })
}

func hexDigits(s string) bool {
	return len(s) == digestHexDigits && every(s, func(c byte) bool { return digit(c) || c >= 'a' && c <= 'f' })
}

// IsDigest says whether s is "sha256:" and 64 hex digits, in small letters.
func IsDigest(s string) bool {
	hex, ok := strings.CutPrefix(s, digestPrefix)
	return ok && hexDigits(hex)
}

func envName(s string) bool {
	return s != "" && !digit(s[0]) && every(s, func(c byte) bool { return alnum(c) || upper(c) || strings.IndexByte("_.-", c) >= 0 })
}

// octal is four octal digits whose first is at most max.
func octal(s string, max byte) bool {
	return len(s) == 4 && s[0] <= max && every(s, func(c byte) bool { return c >= '0' && c <= '7' })
}

// absolute is a path in the one form that names a place: from the root,
// without dots, doubled or trailing slashes.
func absolute(s string) bool {
	return len(s) <= maxPath && path.IsAbs(s) && path.Clean(s) == s && printable(s)
}

// below says whether p lies under dir.
func below(p, dir string) bool {
	return dir == "/" && p != "/" || strings.HasPrefix(p, dir+"/")
}

// base64Text returns what canonical base64 stands for.
func base64Text(s string) ([]byte, bool) {
	b, err := base64.StdEncoding.Strict().DecodeString(s)
	return b, err == nil && base64.StdEncoding.EncodeToString(b) == s
}
