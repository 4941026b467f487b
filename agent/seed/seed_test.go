// SPDX-License-Identifier: Apache-2.0

package seed

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/sign"
)

// key is a voucher's.
var key = sync.OnceValue(func() string {
	_, text, err := sign.GenerateSigner()
	if err != nil {
		panic(err)
	}
	return string(text)
})

func good() *Seed {
	return &Seed{APIVersion: Version, Kind: "Seed", Name: "node-1", Ledger: []string{"http://10.0.2.2:8470"}, Mirrors: []string{"http://10.0.2.2:8480"},
		Voucher:    sign.Envelope{PayloadType: "application/vnd.zos.voucher.v1+json", Payload: []byte("{}"), Signatures: []sign.Signature{{KeyID: "SHA256:x", Sig: []byte{1}}}},
		VoucherKey: key(),
		Networks:   []Network{Automatic()}, Recovery: []string{}}
}

func encoded(t *testing.T) []byte {
	t.Helper()
	b, err := good().Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecodeTakesBackWhatEncodeWrote(t *testing.T) {
	s, err := Decode(encoded(t))
	if err != nil || s.Name != "node-1" {
		t.Fatal(s, err)
	}
}

func TestDecodeRefuses(t *testing.T) {
	text := string(encoded(t))
	for name, c := range map[string]struct{ old, new, want string }{
		"unknown field": {`"name"`, `"extra":1,"name"`, "extra"},
		"absent field":  {`"vlan":0,`, ``, "networks[0].vlan"},
		"old version":   {Version + `","kind"`, `zos/v1","mind"`, "make it anew"},
		"older version": {Version + `","kind"`, `zos/v2","mind"`, "is of version zos/v2"},
		"bad recovery":  {`"recovery":[]`, `"recovery":["sk-ssh-ed25519@openssh.com AAAA"]`, "recovery[0]"},
		"secret key":    {`"recovery":[]`, `"recovery":["AGE-SECRET-KEY-1QQ"]`, "recovery[0]"},
		"all may":       {`"recovery":[]`, `"recovery":["a","a","a","a","a","a","a","a","a"]`, "at most 8"},
		"wrong case":    {`"name"`, `"Name"`, "ame"},
		"other kind":    {`"Seed"`, `"Sed"`, "kind"},
		"bad name":      {`"node-1"`, `"Node_1"`, "name"},
		"bad URL":       {`http://10.0.2.2:8470`, `ftp://10.0.2.2`, "ledger[0]"},
		"bad mode":      {`"ipv4":{"mode":"dhcp"`, `"ipv4":{"mode":"auto"`, "networks[0].ipv4.mode"},
		"no address":    {`"ipv4":{"mode":"dhcp"`, `"ipv4":{"mode":"static"`, "networks[0].ipv4.address"},
		"v4 for v6":     {`"ipv6":{"mode":"auto","address":""`, `"ipv6":{"mode":"static","address":"192.0.2.1/24"`, "networks[0].ipv6.address"},
		"too much said": {`"ipv6":{"mode":"auto","address":"","router":""`, `"ipv6":{"mode":"auto","address":"","router":"fe80::1"`, "networks[0].ipv6.address"},
		"bad router":    {`"ipv6":{"mode":"auto","address":"","router":""`, `"ipv6":{"mode":"static","address":"2001:db8::1/64","router":"fe80::1%eth0"`, "networks[0].ipv6.router"},
		"nothing on":    {`"mode":"dhcp","address":"","router":""},"ipv6":{"mode":"auto"`, `"mode":"off","address":"","router":""},"ipv6":{"mode":"off"`, "networks[0].ipv6.mode"},
		"bad link":      {`"links":[]`, `"links":["1:2"]`, "networks[0].links[0]"},
		"link twice":    {`"links":[]`, `"links":["eth0","eth0"]`, "networks[0].links[1]"},
		"bad bond":      {`"bond":"none"`, `"bond":"802.3ad"`, "networks[0].bond"},
		"bad VLAN":      {`"vlan":0`, `"vlan":4095`, "networks[0].vlan"},
		"bad DNS":       {`"dns":[]`, `"dns":["a"]`, "networks[0].dns[0]"},
		"bad NTP":       {`"ntp":[]`, `"ntp":["a b"]`, "networks[0].ntp[0]"},
	} {
		in := strings.Replace(text, c.old, c.new, 1)
		if in == text {
			t.Fatalf("%s: nothing changed", name)
		}
		if _, err := Decode([]byte(in)); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q named", name, err, c.want)
		}
	}
}

// TestRouterIsANeighbour: a router that nothing on the node's own link can be is
// a slip of the pen, and the node that has it reaches nobody.
func TestRouterIsANeighbour(t *testing.T) {
	for _, c := range []struct {
		address, router string
		ok              bool
	}{
		{"10.0.0.1/24", "10.0.0.254", true},
		{"10.0.0.1/24", "10.0.1.1", false},
		{"10.0.0.1/24", "10.0.0.1", false}, // the node itself
		{"10.0.0.1/24", "0.0.0.0", false},
		{"10.0.0.1/24", "224.0.0.1", false},
		{"10.0.0.1/24", "169.254.0.1", true},
		{"10.0.0.1/16", "10.0.1.1", true},
		{"203.0.113.9/32", "10.0.1.1", true},
		{"203.0.113.9/32", "203.0.113.9", false},
		{"2001:db8::1/64", "2001:db8::fe", true},
		{"2001:db8::1/64", "2001:db8:1::1", false},
		{"2001:db8::1/64", "fe80::1", true},
		{"2001:db8::1/64", "ff02::2", false},
		{"2001:db8::1/128", "2001:db8:1::1", true},
	} {
		n := Automatic()
		ip := &n.IPv4
		if strings.Contains(c.address, ":") {
			ip = &n.IPv6
		}
		*ip = IP{Mode: ModeStatic, Address: c.address, Router: c.router}
		err := n.validate("networks[0]")
		if (err == nil) != c.ok {
			t.Errorf("%s by %s: %v, want it taken: %t", c.address, c.router, err, c.ok)
		}
		if err != nil && !strings.Contains(err.Error(), "router") {
			t.Errorf("%s by %s: the field is not named: %v", c.address, c.router, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	b, err := good().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add([]byte(`{"apiVersion":"zos/v1"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := Decode(b)
		if err != nil {
			return
		}
		again, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("does not take back what it wrote: %v", err)
		}
	})
}

// table is an SMBIOS table: a type 1 structure, then OEM strings, then the end.
func table(strs ...string) []byte {
	b := []byte{1, 6, 0, 0, 1, 2}
	b = append(b, "maker\x00thing\x00\x00"...)
	b = append(b, typeOEMStrings, 5, 1, 0, byte(len(strs)))
	for _, s := range strs {
		b = append(append(b, s...), 0)
	}
	return append(b, 0, 127, 4, 2, 0, 0, 0)
}

func FuzzSMBIOS(f *testing.F) {
	f.Add(table("a", "b"))
	f.Add([]byte{11, 5, 0, 0, 1, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		if strs, err := oemStrings(b); err == nil {
			for _, s := range strs {
				if len(s) > len(b) {
					t.Fatal("more than there was")
				}
			}
		}
	})
}

func sources(t *testing.T) (dir string, m medium) {
	dir = t.TempDir()
	for _, d := range []string{"sys", "dev", "mnt/zos"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir, medium{efivars: dir + "/efivars", sys: dir + "/sys", dev: dir + "/dev", log: slog.New(slog.DiscardHandler),
		mount: func(_ string, read func(string) error) error { return read(dir + "/mnt") }}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFirstSourceIsUsedWhole(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	named := func(name string) []byte {
		s := good()
		s.Name = name
		b, err := s.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	dir, m := sources(t)
	b64 := base64.StdEncoding.EncodeToString(named("smbios"))
	write(t, dir+"/dmi", table("other", SMBIOSPrefix+b64[:100], SMBIOSPrefix+b64[100:]))
	get := func(want string) {
		t.Helper()
		s, err := load(context.Background(), log, dir+"/initramfs", m, dir+"/dmi")
		if err != nil || s.Name != want {
			t.Fatalf("got %v %v, want %s", s, err, want)
		}
	}
	get("smbios")
	sector := make([]byte, sectorSize)
	copy(sector[offFAT32Name:], "FAT32")
	sector[offSignature], sector[offSignature+1] = 0x55, 0xaa
	write(t, dir+"/sys/sda1", nil)
	write(t, dir+"/dev/sda1", sector)
	get("smbios") // a medium without a seed
	write(t, dir+"/mnt/"+MediumPath, named("medium"))
	get("medium")
	write(t, dir+"/initramfs", named("initramfs"))
	get("initramfs")
	write(t, dir+"/initramfs", []byte("{}"))
	if _, err := load(context.Background(), log, dir+"/initramfs", m, dir+"/dmi"); err == nil || errors.Is(err, ErrNone) {
		t.Fatalf("a bad seed was passed over: %v", err)
	}
}

func TestRealFAT(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestRealFAT: needs root to mount")
	}
	for _, tool := range []string{"mkfs.vfat", "mmd", "mcopy", "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip("SKIP TestRealFAT: no " + tool)
		}
	}
	dir := t.TempDir()
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Skipf("SKIP TestRealFAT: %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	img := dir + "/esp.img"
	write(t, img, nil)
	if err := os.Truncate(img, 34<<20); err != nil {
		t.Fatal(err)
	}
	write(t, dir+"/seed.json", encoded(t))
	run("mkfs.vfat", "-F", "32", img)
	run("mmd", "-i", img, "::zos")
	run("mcopy", "-i", img, dir+"/seed.json", "::zos/seed.json")
	loop := run("losetup", "-f", "--show", img)
	t.Cleanup(func() { run("losetup", "-d", loop) })
	if fat, err := isFAT(loop); err != nil || !fat {
		t.Fatalf("not seen as FAT: %v", err)
	}
	err := mountVFAT(loop, func(d string) error {
		b, err := readLimited(filepath.Join(d, MediumPath))
		if err != nil {
			return err
		}
		_, err = Decode(b)
		return err
	})
	if errors.Is(err, unix.ENODEV) {
		t.Skip("SKIP TestRealFAT: this kernel has no vfat")
	}
	if err != nil {
		t.Fatal(err)
	}
}

// TestMountIsAttachedNowhere: an agent that is killed while it reads leaves
// nothing in the next one's way. Any file system shows it.
func TestMountIsAttachedNowhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("SKIP TestMountIsAttachedNowhere: needs root to mount")
	}
	img := t.TempDir() + "/img"
	write(t, img, nil)
	if err := os.Truncate(img, 8<<20); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) string {
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Skipf("SKIP TestMountIsAttachedNowhere: %v: %v: %s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	run("mkfs.ext4", "-q", "-O", "^has_journal", img)
	loop := run("losetup", "-f", "--show", img)
	t.Cleanup(func() { run("losetup", "-d", loop) })
	seen := false
	err := detached("ext4", loop, func(dir string) error {
		list, err := os.ReadDir(dir)
		if err != nil {
			return err
		}
		seen = len(list) == 1 && list[0].Name() == "lost+found"
		mounts, err := os.ReadFile("/proc/self/mounts")
		if strings.Contains(string(mounts), loop+" ") {
			t.Errorf("%s is attached to a folder", loop)
		}
		if err := os.WriteFile(filepath.Join(dir, "x"), nil, 0o600); !errors.Is(err, unix.EROFS) {
			t.Errorf("write: %v", err)
		}
		return err
	})
	if err != nil || !seen {
		t.Errorf("seen %v, %v", seen, err)
	}
	if err := detached("ext4", img+".none", func(string) error { return nil }); err == nil {
		t.Error("a device that is not there was mounted")
	}
}
