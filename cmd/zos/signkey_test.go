// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestSignWithAgent signs with a .pub file whose private half is in an agent.
func TestSignWithAgent(t *testing.T) {
	for _, tool := range []string{"ssh-agent", "ssh-add"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP %s: %s is not installed", t.Name(), tool)
		}
	}
	d := newTrust(t)
	dir, err := os.MkdirTemp("", "zos-agent") // a socket's name must be short
	if err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "s")
	agent := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := agent.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := agent.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := agent.Wait(); err == nil {
			t.Error("the killed agent ended well")
		}
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, socket) {
		t.Fatalf("ssh-agent says %q, %v", line, err)
	}
	t.Setenv("SSH_AUTH_SOCK", socket)
	if out, err := exec.Command("ssh-add", "-q", d.key("author")).CombinedOutput(); err != nil {
		t.Fatalf("ssh-add: %v\n%s", err, out)
	}
	env := d.file("env.json")
	d.sign(exitOK, "author.pub", "author", d.spec, env)
	text, _ := cli(t, exitOK, "verify", env)
	says(t, text, d.ids["author"])
	_, errs := d.sign(exitFailed, "security1.pub", "security", env, env)
	says(t, errs, "does not hold key "+d.ids["security1"])
}

// TestPassphraseChild is not a test of its own: TestPassphrase runs it on a
// terminal.
func TestPassphraseChild(t *testing.T) {
	args := os.Getenv("ZOS_TEST_PASSPHRASE_ARGS")
	if args == "" {
		return
	}
	os.Exit(run(t.Context(), strings.Split(args, "\n"), os.Stdout, os.Stderr))
}

// TestPassphrase types a passphrase on a pseudo terminal.
func TestPassphrase(t *testing.T) {
	if _, err := exec.LookPath("ssh-keygen"); err != nil {
		t.Skipf("SKIP %s: ssh-keygen is not installed", t.Name())
	}
	d := newTrust(t)
	locked := d.file("locked")
	if out, err := exec.Command("ssh-keygen", "-q", "-t", "ed25519", "-N", "open sesame", "-f", locked).CombinedOutput(); err != nil {
		t.Fatalf("ssh-keygen: %v\n%s", err, out)
	}
	env := d.file("env.json")
	args := []string{"sign", "--key", locked, "--role", "author", d.spec, "-o", env}

	ask := func(answer string) (said string, err error) {
		terminal, tty := pseudoTerminal(t)
		child := exec.Command(os.Args[0], "-test.run=^TestPassphraseChild$")
		child.Env = append(os.Environ(), "ZOS_TEST_PASSPHRASE_ARGS="+strings.Join(args, "\n"))
		child.Stdin = tty
		child.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}
		if err := child.Start(); err != nil {
			t.Fatal(err)
		}
		prompt := make([]byte, len("Passphrase of "+locked+": "))
		if _, err := io.ReadFull(terminal, prompt); err != nil {
			t.Fatal(err)
		}
		if _, err := terminal.WriteString(answer + "\n"); err != nil {
			t.Fatal(err)
		}
		return string(prompt), child.Wait()
	}
	said, err := ask("wrong")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != exitRefused {
		t.Errorf("a wrong passphrase gives %v", err)
	}
	says(t, said, "Passphrase of "+locked)
	if _, err := os.Stat(env); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("an envelope was written (%v)", err)
	}
	if _, err := ask("open sesame"); err != nil {
		t.Errorf("the right passphrase gives %v", err)
	}
	cli(t, exitOK, "verify", env)
}
