// SPDX-License-Identifier: Apache-2.0

package ledger

import "strings"

// What names and numbers in entries look like. Each is written out, and not as
// a regular expression: a validator looks at a dozen of them in each entry, and
// package regexp would be a tenth of what a reader adds to a program. The tests
// hold each against the expression that stands beside it. DNS labels and digests
// are those of package spec.

func lower(c byte) bool { return c >= 'a' && c <= 'z' }
func digit(c byte) bool { return c >= '0' && c <= '9' }
func alnum(c byte) bool { return lower(c) || digit(c) }

// made says whether s has 1 to most bytes, all of which are ok. A byte of a
// character outside of ASCII is given as it is, and is ok nowhere here.
func made(s string, most int, ok func(byte) bool) bool {
	for i := range len(s) {
		if !ok(s[i]) {
			return false
		}
	}
	return s != "" && len(s) <= most
}

// isWord is ^[a-z][a-z0-9-]{0,62}$
func isWord(s string) bool {
	return made(s, 63, func(c byte) bool { return alnum(c) || c == '-' }) && lower(s[0])
}

// isBoard is the name of a board: ^[a-z0-9][a-z0-9_-]{0,62}$
func isBoard(s string) bool {
	return made(s, 63, func(c byte) bool { return alnum(c) || c == '_' || c == '-' }) && alnum(s[0])
}

// isLabelKey is ^[a-zA-Z0-9]([a-zA-Z0-9._/-]{0,62}[a-zA-Z0-9])?$
func isLabelKey(s string) bool {
	letter := func(c byte) bool { return alnum(c) || c >= 'A' && c <= 'Z' }
	return made(s, 64, func(c byte) bool { return letter(c) || c == '.' || c == '_' || c == '/' || c == '-' }) &&
		letter(s[0]) && letter(s[len(s)-1])
}

// ValidVersion says whether s is a version of the node's image, such as "1.4.0":
// two to four numbers without leading zeros, so that each has one spelling and
// systemd-boot, which chooses by them, sorts as CompareVersions does.
// ^(0|[1-9][0-9]{0,8})(\.(0|[1-9][0-9]{0,8})){1,3}$
func ValidVersion(s string) bool {
	if dots := strings.Count(s, "."); dots < 1 || dots > 3 {
		return false
	}
	for number := range strings.SplitSeq(s, ".") {
		if !made(number, 9, digit) || number[0] == '0' && number != "0" {
			return false
		}
	}
	return true
}
