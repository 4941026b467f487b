// SPDX-License-Identifier: Apache-2.0

package ledger

import (
	"cmp"
	"strconv"
	"strings"
)

// CompareVersions orders versions number by number: -1, 0 or 1. One that
// merely goes on is the greater one: 1.4 < 1.4.0. What is no version is less
// than every version.
func CompareVersions(a, b string) int {
	if !ValidVersion(a) || !ValidVersion(b) {
		return cmp.Compare(known(a), known(b))
	}
	as, bs := strings.Split(a, "."), strings.Split(b, ".")
	for i := range min(len(as), len(bs)) {
		x, _ := strconv.Atoi(as[i]) // digits, nine at most: ValidVersion says so
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
