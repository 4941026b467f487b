// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
)

// prefixes are the ways in which a name may begin. The format stores a number
// in their place, and of an ACL nothing else.
var prefixes = []struct {
	text  string
	index byte
	whole bool // the name has no more to it
}{
	{"user.", 1, false},
	{"system.posix_acl_access", 2, true},
	{"system.posix_acl_default", 3, true},
	{"trusted.", 4, false},
	{"security.", 6, false},
}

const xattrHeader = 12 // name filter, shared count, reserved: all zero here

// maxXattrs keeps an inode and its attributes far below what i_xattr_icount
// can count.
const maxXattrs = 64 << 10

func splitXattr(name string) (index byte, rest string, ok bool) {
	for _, p := range prefixes {
		if rest, ok := strings.CutPrefix(name, p.text); ok && (rest == "") == p.whole && len(rest) <= MaxName {
			return p.index, rest, true
		}
	}
	return 0, "", false
}

// HoldsXattr tells whether the format has a place for an attribute of this
// name and value. An ACL must have the form in which Linux passes it, or
// the kernel would not let anybody near the file.
func HoldsXattr(name, value string) bool {
	index, _, ok := splitXattr(name)
	return ok && (index != 2 && index != 3 || isACL(value))
}

// isACL checks the form of an ACL: version 2, then entries of tag,
// permissions and id.
func isACL(v string) bool {
	if len(v) < 4 || len(v)%8 != 4 || v[:4] != "\x02\x00\x00\x00" {
		return false
	}
	for v = v[4:]; v != ""; v = v[8:] {
		switch tag := uint16(v[0]) | uint16(v[1])<<8; tag {
		case 0x01, 0x02, 0x04, 0x08, 0x10, 0x20:
		default:
			return false
		}
	}
	return true
}

// EncodeXattrs gives the attributes, by full names such as "user.a", in the
// form that a Node holds: what stands behind its inode, sorted by full name.
// None are "".
func EncodeXattrs(attrs map[string]string) (string, error) {
	if len(attrs) == 0 {
		return "", nil
	}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	sort.Strings(names)
	out := make([]byte, xattrHeader)
	for _, name := range names {
		value := attrs[name]
		index, rest, ok := splitXattr(name)
		if !ok || !HoldsXattr(name, value) {
			return "", fmt.Errorf("%w: extended attribute %q", ErrTree, name)
		}
		if len(value) > 0xffff {
			return "", fmt.Errorf("%w: value of extended attribute %q has %d bytes", ErrTree, name, len(value))
		}
		out = append(out, byte(len(rest)), index)
		out = binary.LittleEndian.AppendUint16(out, uint16(len(value)))
		out = append(out, rest...)
		out = append(out, value...)
		for len(out)%4 != 0 {
			out = append(out, 0)
		}
	}
	if len(out) > maxXattrs {
		return "", fmt.Errorf("%w: %d bytes of extended attributes, limit %d", ErrTree, len(out), maxXattrs)
	}
	return string(out), nil
}
