// SPDX-License-Identifier: Apache-2.0

package verity

import (
	"errors"
	"strings"
	"testing"
)

var root = strings.Repeat("0123456789abcdef", 4)

func TestParseCmdline(t *testing.T) {
	p, err := ParseCmdline("console=ttyS0 quiet zos.verity=" + root + ",300\n")
	if err != nil || p != (Params{root, 300}) {
		t.Errorf("%+v, %v", p, err)
	}
	for _, bad := range []string{"", "quiet", "zos.verity=", "zos.verity=" + root, "zos.verity=" + root + ",", "zos.verity=" + root + ",0",
		"zos.verity=" + root + ",-1", "zos.verity=" + root + ",0x10", "zos.verity=" + root + ",007", "zos.verity=" + root[:62] + ",3",
		"zos.verity=" + strings.ToUpper(root) + ",3", "zos.verity=" + root + ",3,4", "zos.verity=" + root + ",99999999999999",
		"zos.verity=" + root + ",3 zos.verity=" + root + ",3"} {
		if p, err := ParseCmdline(bad); err == nil {
			t.Errorf("%q gave %+v", bad, p)
		}
	}
}

func FuzzParseCmdline(f *testing.F) {
	f.Add("zos.verity=" + root + ",300")
	f.Add("zos.verity=a,b")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := ParseCmdline(s)
		if err == nil && (len(p.Root) != 64 || p.Blocks == 0 || strings.ContainsAny(p.Table("/dev/vda"), "\x00\n")) {
			t.Errorf("%q gave %+v", s, p)
		}
	})
}

func TestTable(t *testing.T) {
	p := Params{root, 300}
	want := "1 /dev/vda /dev/vda 4096 4096 300 300 sha256 " + root + " - 2 panic_on_corruption panic_on_error"
	if got := p.Table("/dev/vda"); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
	if p.Sectors() != 2400 {
		t.Errorf("%d sectors", p.Sectors())
	}
}

func TestCheck(t *testing.T) {
	p := Params{root, 300}
	good := State{"0 2400 verity 1 254:0 254:0 4096 4096 300 300 sha256 " + root + " - 2 panic_on_corruption panic_on_error", "V"}
	if err := p.check(good, "254:0"); err != nil {
		t.Error(err)
	}
	swapped := good
	swapped.Table = strings.Replace(good.Table, "panic_on_corruption panic_on_error", "panic_on_error panic_on_corruption", 1)
	if err := p.check(swapped, "254:0"); err != nil {
		t.Error(err)
	}
	for name, s := range map[string]State{
		"corrupt":      {good.Table, "C"},
		"other disk":   {strings.ReplaceAll(good.Table, "254:0", "254:16"), "V"},
		"other root":   {strings.Replace(good.Table, "0123", "0124", 1), "V"},
		"shorter":      {strings.Replace(good.Table, "0 2400", "0 8", 1), "V"},
		"no options":   {strings.TrimSuffix(good.Table, " 2 panic_on_corruption panic_on_error"), "V"},
		"ignored":      {strings.Replace(good.Table, "panic_on_corruption", "ignore_corruption", 1), "V"},
		"at most once": {strings.Replace(good.Table, "2 panic", "3 check_at_most_once panic", 1), "V"},
		"empty":        {},
	} {
		if err := p.check(s, "254:0"); !errors.Is(err, ErrNotVerity) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
