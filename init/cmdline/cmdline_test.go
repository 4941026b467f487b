// SPDX-License-Identifier: Apache-2.0

package cmdline

import (
	"slices"
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for line, want := range map[string][]string{
		"":                           nil,
		" quiet  panic=10\n":         {"quiet", "panic=10"},
		`a="b c" d`:                  {"a=b c", "d"},
		"console=ttyS0,115200n8\tro": {"console=ttyS0,115200n8", "ro"},
	} {
		if got := Parse(line); !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", line, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	for _, bad := range []string{"console=a\fmodule.sig_enforce=0", "console=a\rlockdown=none", "console=a\xa0rdinit=/bin/agent", "console=a\vx", "a\nb", "a\tb", "\x00"} {
		if Printable(bad) == nil {
			t.Errorf("%q is taken", bad)
		}
	}
	if err := Printable("console=ttyS0,115200n8 quiet\n"); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	if err := Check(Parse("console=tty0 console=ttyS0,115200n8 quiet loglevel=4 panic=10 oops=panic random.trust_cpu=on printk.devkmsg=on rdinit=/init --")); err != nil {
		t.Errorf("our own command line: %v", err)
	}
	for _, bad := range []string{"init=/bin/sh", "rdinit=/bin/agent", "module.sig_enforce=0", "quietly", "systemd.debug_shell", "lockdown=none", "Quiet", "iommu=off", "intel_iommu=off", "initrd=other"} {
		err := Check(Parse("quiet " + bad + " panic=10"))
		if err == nil || !strings.Contains(err.Error(), bad) || strings.Contains(err.Error(), "panic=10") {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
