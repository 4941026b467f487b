// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// version is what versions of the node's image look like: two to four numbers
// without leading zeros, so that each has one spelling and systemd-boot, which
// chooses by them, sorts as CompareVersions does.
// It is made when it is first asked for: counted repetitions take long, and the
// start of every agent would wait for them.
var version = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,3}$`)
})

// ValidVersion says whether s is a version of the node's image, such as "1.4.0".
func ValidVersion(s string) bool { return match(version(), s) }

// CompareVersions orders versions number by number: -1, 0 or 1. One that
// merely goes on is the greater one: 1.4 < 1.4.0. What is no version is less
// than every version.
func CompareVersions(a, b string) int {
	if !ValidVersion(a) || !ValidVersion(b) {
		return cmp.Compare(known(a), known(b))
	}
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i]) // digits, nine at most: the pattern says so
		y, _ := strconv.Atoi(bs[i])
		if c := cmp.Compare(x, y); c != 0 {
			return c
		}
	}
	return cmp.Compare(len(as), len(bs))
}

func known(s string) int {
	if ValidVersion(s) {
		return 1
	}
	return 0
}
