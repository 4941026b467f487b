// SPDX-License-Identifier: Apache-2.0

// Package cmdline reads the kernel's command line and refuses words that are
// not on a list: firmware and hypervisors can add words to a signed image
// without breaking its signature, and some words would take the node over.
package cmdline

import (
	"fmt"
	"strings"
)

// allowed lists what may stand on a node's command line: whole words, or keys
// that end in "=".
var allowed = []string{
	"quiet", "splash", "ro", "rw", "nomodeset", "console=", "loglevel=", "panic=", "oops=", "rdinit=/init",
	"random.trust_cpu=", "printk.devkmsg=", "rootfstype=tmpfs", "BOOT_IMAGE=", "mitigations=auto",
	"earlyprintk=", "earlycon=", "reboot=", "lapic=", "tsc=", "clocksource=", "iommu=pt", "iommu=force", "intel_iommu=on", "amd_iommu=on",
	"no_timer_check", "noreplace-smp", "i8042.nokbd", "net.ifnames=",
	"--", // the kernel reads no options behind it: image.Closed
}

// Printable refuses every byte at which the kernel could split words and Parse
// would not (it takes form feeds, carriage returns and 0xa0 for spaces).
func Printable(s string) error {
	for i, c := range []byte(strings.TrimRight(s, "\n")) {
		if c < ' ' || c > '~' {
			return fmt.Errorf("byte %d is %#02x: only printable ASCII is allowed", i, c)
		}
	}
	return nil
}

// Parse splits a command line into words; a word may hold spaces inside
// double quotes.
func Parse(s string) []string {
	var words []string
	var word strings.Builder
	quoted := false
	for _, r := range strings.TrimSpace(s) {
		switch {
		case r == '"':
			quoted = !quoted
		case (r == ' ' || r == '\t' || r == '\n') && !quoted:
			if word.Len() > 0 {
				words = append(words, word.String())
				word.Reset()
			}
		default:
			word.WriteRune(r)
		}
	}
	if word.Len() > 0 {
		words = append(words, word.String())
	}
	return words
}

// Check returns an error that names every word that is not allowed.
func Check(words []string) error {
	var bad []string
	for _, w := range words {
		if !ok(w) {
			bad = append(bad, w)
		}
	}
	if len(bad) > 0 {
		return fmt.Errorf("words that this image does not allow: %s", strings.Join(bad, " "))
	}
	return nil
}

func ok(word string) bool {
	for _, a := range allowed {
		if word == a || strings.HasSuffix(a, "=") && strings.HasPrefix(word, a) {
			return true
		}
	}
	return false
}
