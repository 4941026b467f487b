// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger/ledgertest"
)

// TestOnlyRegularFiles: no command blocks on a pipe or reads a device without
// end, wherever a file is named.
func TestOnlyRegularFiles(t *testing.T) {
	dir := t.TempDir()
	pipe, key, voucher := filepath.Join(dir, "pipe"), keyFile(t, dir, "key"), voucherFile(t)
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	l := ledgertest.New(t)
	entry := file(t, "entry.json", l.Register("other", 1, nil))
	for _, command := range []string{
		"check @", "render @ -o @dir/out", "verify @", "verify @entry --root @", "submit @",
		"sign --key @ --role author @entry -o @dir/out", "sign --key @key --role author @ -o @dir/out",
		"status --root @", "ledger init @dir/l --origin x --root-key @key --role author=@:1 --require deployment=author",
		"ledger revoke @ --key @key", "ledger peer @dir @", "node build -o @dir/out --root @", "node build -o @dir/out --root @voucher --seed @",
		"node run @key --seed @", "node seed --name n --ledger http://x --voucher @", "node seed --name n --ledger http://x --voucher @voucher --voucher-key @",
		"node keys @dir/keys --also @", "image blob @ --store @dir/s", "image convert docker-archive:@ --store @dir/s",
	} {
		if err := os.WriteFile(filepath.Join(dir, "root.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		for what, path := range map[string]string{"pipe": pipe, "device": "/dev/zero", "folder": dir} {
			if what == "folder" && strings.HasPrefix(command, "node run") {
				continue
			}
			args := strings.Fields(strings.NewReplacer("@dir", dir, "@key", key, "@voucher", voucher, "@entry", entry, "@", path).Replace(command))
			said := make(chan string, 1)
			go func() {
				var out, errs bytes.Buffer
				if code := run(t.Context(), args, &out, &errs); code != exitRefused {
					errs.WriteString("WRONG EXIT CODE")
				}
				said <- errs.String()
			}()
			select {
			case s := <-said:
				if !strings.Contains(s, "is a "+what+"; want a regular file with ") || strings.Contains(s, "WRONG") {
					t.Errorf("zos %s, a %s: %s", command, what, s)
				}
			case <-time.After(time.Minute):
				t.Fatalf("zos %s blocks on a %s", command, what)
			}
		}
	}
}

// TestTooLarge: what cannot be the document is not read whole; the size and
// the limit are named.
func TestTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "large")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 40); err != nil { // sparse; read whole, it would fill the memory
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{"check", "verify", "submit"} {
		_, errs := zos(t, exitRefused, command, path)
		contains(t, errs, "has 1099511627776 bytes", "at most 65536")
	}
	if _, err := readFile("/proc/self/status", "a test", 10); err == nil || !strings.Contains(err.Error(), "more than 10 bytes") {
		t.Errorf("a file without a size: %v", err)
	}
}

// TestSecretsStaySecret: what holds a private key gets mode 0600 even where a
// file that everybody reads stood, and a voucher is never written over.
func TestSecretsStaySecret(t *testing.T) {
	dir, voucher := t.TempDir(), voucherFile(t)
	key := keyFile(t, dir, "op")
	private := func(path string) {
		t.Helper()
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o600 || info.Size() == 0 {
			t.Errorf("%s: %v, %v", path, info, err)
		}
	}
	seedFile := filepath.Join(dir, "seed.json")
	if err := os.WriteFile(seedFile, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	zos(t, exitOK, "node", "seed", "--name", "n1", "--ledger", "http://10.0.2.2:8470", "--voucher", voucher, "-o", seedFile, "--replace")
	private(seedFile)
	img := smallImage(t)
	for how, ext := range map[string]string{"image": ".img", "usb": ".fat", "smbios": ".smbios"} {
		for _, name := range []string{"n1" + ext, "n1" + ext + ".part"} {
			if err := os.WriteFile(filepath.Join(dir, name), nil, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		zos(t, exitOK, "node", "seeds", img, seedFile, "--form", how, "-o", dir, "--replace")
		private(filepath.Join(dir, "n1"+ext))
	}
	made := filepath.Join(dir, "v.json")
	again := []string{"ledger", "voucher", "--key", key, "-o", made}
	zos(t, exitOK, again...)
	private(made)
	private(made + ".key")
	before := get(t, made+".key")
	_, errs := zos(t, exitRefused, again...)
	contains(t, errs, "v.json exists", "name another file")
	if err := os.Remove(made); err != nil {
		t.Fatal(err)
	}
	_, errs = zos(t, exitRefused, again...)
	contains(t, errs, "v.json.key exists")
	if !bytes.Equal(before, get(t, made+".key")) {
		t.Error("the key of a voucher was overwritten")
	}
	if _, errs := zos(t, exitRefused, "node", "seed", "--name", "n1", "--ledger", "http://10.0.2.2:8470", "--voucher", voucher, "-o", "/dev/null"); !strings.Contains(errs, "is a device") {
		t.Errorf("-o /dev/null: %s", errs)
	}
}
