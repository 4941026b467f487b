// SPDX-License-Identifier: Apache-2.0

package recovery

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"filippo.io/age"
)

// TestAge: Debian's age and an operator's SSH key get the key out again.
func TestAge(t *testing.T) {
	for _, tool := range []string{"age", "ssh-keygen"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP judge age: %v", err)
		}
	}
	dir := t.TempDir()
	p := func(name string) string { return filepath.Join(dir, name) }
	own, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p("own"), []byte(own.String()+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	keys := []string{own.Recipient().String()}
	for name, args := range map[string][]string{"ed25519": {"-t", "ed25519"}, "rsa": {"-t", "rsa", "-b", "2048"}} {
		if out, err := exec.Command("ssh-keygen", append(args, "-q", "-N", "", "-C", "somebody", "-f", p(name))...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		b, err := os.ReadFile(p(name + ".pub"))
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, strings.TrimSpace(string(b)))
	}
	to, err := Recipients(keys)
	if err != nil {
		t.Fatal(err)
	}
	key := NewKey()
	text, err := Encrypt(key, to)
	if err != nil || strings.Contains(text, key) {
		t.Fatal(err)
	}
	for _, name := range []string{"own", "ed25519", "rsa"} {
		cmd := exec.Command("age", "-d", "-i", p(name))
		cmd.Stdin = strings.NewReader(text)
		if out, err := cmd.Output(); err != nil || string(out) != key {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
}

func TestKeyText(t *testing.T) {
	key := NewKey()
	if !regexp.MustCompile(`^([a-z2-7]{4}-){12}[a-z2-7]{4}$`).MatchString(key) || key == NewKey() {
		t.Errorf("%q", key)
	}
	for text, good := range map[string]bool{key: true, " " + strings.ToUpper(key) + "\r\n": true, key[:len(key)-1]: false, "": false, key + "aaaa": false, strings.Replace(key, "-", "1", 1): false} {
		got, err := Parse([]byte(text))
		if (err == nil) != good || good && got != key {
			t.Errorf("%q: %q, %v", text, got, err)
		}
	}
}

func TestRecipients(t *testing.T) {
	for _, bad := range []string{"", "age1nothing", "ssh-ed25519 AAAA", "sk-ssh-ed25519@openssh.com AAAAGnNrLXNzaC1lZDI1NTE5QG9wZW5zc2guY29tAAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAABHNzaDo=", "AGE-SECRET-KEY-1"} {
		if _, err := Recipients([]string{bad}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}
