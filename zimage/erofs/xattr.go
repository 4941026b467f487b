// SPDX-License-Identifier: Apache-2.0

package erofs

import (
	"encoding/binary"
	"fmt"
	"sort"
	"strings"
)

// The format stores a number in place of the usual prefixes.
const (
	xattrUser     = 1
	xattrTrusted  = 4
	xattrSecurity = 6
)

const xattrHeader = 12 // name filter, shared count, reserved: all zero here

// maxXattrs keeps an inode and its attributes far below what i_xattr_icount
// can count.
const maxXattrs = 64 << 10

func splitXattr(name string) (index byte, rest string, err error) {
	for _, p := range []struct {
		prefix string
		index  byte
	}{{"user.", xattrUser}, {"trusted.", xattrTrusted}, {"security.", xattrSecurity}} {
		if rest, ok := strings.CutPrefix(name, p.prefix); ok && rest != "" && len(rest) <= MaxName {
			return p.index, rest, nil
		}
	}
	return 0, "", fmt.Errorf("%w: extended attribute %q", ErrTree, name)
}

// encodeXattrs gives the inline attribute area, sorted by full name; nothing
// at all when there are no attributes.
func encodeXattrs(attrs map[string]string) ([]byte, error) {
	if len(attrs) == 0 {
		return nil, nil
	}
	names := make([]string, 0, len(attrs))
	for name := range attrs {
		names = append(names, name)
	}
	sort.Strings(names)
	out := make([]byte, xattrHeader)
	for _, name := range names {
		index, rest, err := splitXattr(name)
		if err != nil {
			return nil, err
		}
		value := attrs[name]
		if len(value) > 0xffff {
			return nil, fmt.Errorf("%w: value of extended attribute %q has %d bytes", ErrTree, name, len(value))
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
		return nil, fmt.Errorf("%w: %d bytes of extended attributes, limit %d", ErrTree, len(out), maxXattrs)
	}
	return out, nil
}
