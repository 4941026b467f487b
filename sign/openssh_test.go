// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/hiddeco/sshsig"
)

// run calls a foreign tool in dir and returns what it said.
func run(t *testing.T, dir string, env []string, stdin []byte, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Stdin = dir, bytes.NewReader(stdin)
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

func must(t *testing.T, dir string, env []string, stdin []byte, name string, args ...string) string {
	t.Helper()
	out, err := run(t, dir, env, stdin, name, args...)
	if err != nil {
		t.Fatalf("%s %v: %v\n%s", name, args, err, out)
	}
	return out
}

func needs(t *testing.T, tools ...string) {
	t.Helper()
	for _, tool := range tools {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("SKIP %s: %s is not installed", t.Name(), tool)
		}
	}
}

// keyFile makes a key with ssh-keygen and returns its path and public key.
func keyFile(t *testing.T, kind, passphrase string) (path, public string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "key")
	must(t, "", nil, nil, "ssh-keygen", "-q", "-t", kind, "-N", passphrase, "-C", "somebody@somewhere", "-f", path)
	text, err := os.ReadFile(path + ".pub")
	if err != nil {
		t.Fatal(err)
	}
	public, err = ParsePublicKeyFile(text)
	if err != nil {
		t.Fatal(err)
	}
	return path, public
}

// sshAgent starts an agent that lives as long as the test.
func sshAgent(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "zos-agent") // the name of a socket must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Error(err)
		}
	})
	socket := filepath.Join(dir, "s")
	cmd := exec.Command("ssh-agent", "-D", "-a", socket)
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err == nil {
			t.Error("the killed ssh-agent ended well")
		}
	})
	// It names the socket once it listens there.
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || !strings.Contains(line, socket) {
		t.Fatalf("ssh-agent says %q, %v", line, err)
	}
	return socket
}

// TestKeygenAcceptsOurs: ssh-keygen -Y verify judges what each kind of
// signer of ours makes, and refuses it changed.
func TestKeygenAcceptsOurs(t *testing.T) {
	needs(t, "ssh-keygen", "ssh-agent", "ssh-add")
	socket := sshAgent(t)
	for name, load := range map[string]func(t *testing.T) Signer{
		"generated": func(t *testing.T) Signer { return newKey(t) },
		"ed25519 file": func(t *testing.T) Signer {
			path, _ := keyFile(t, "ed25519", "")
			s, err := LoadSigner(path, nil)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"ecdsa file with passphrase": func(t *testing.T) Signer {
			path, _ := keyFile(t, "ecdsa", "secret words")
			s, err := LoadSigner(path, func() ([]byte, error) { return []byte("secret words"), nil })
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		"ed25519 in agent": func(t *testing.T) Signer { return inAgent(t, socket, "ed25519") },
		"ecdsa in agent":   func(t *testing.T) Signer { return inAgent(t, socket, "ecdsa") },
	} {
		t.Run(name, func(t *testing.T) {
			s := load(t)
			e := sealed(t, `{"spec":"…"}`, s)
			dir := t.TempDir()
			sig, err := sshsig.ParseSignature(e.Signatures[0].Sig)
			if err != nil {
				t.Fatal(err)
			}
			write(t, filepath.Join(dir, "sig"), sshsig.Armor(sig))
			write(t, filepath.Join(dir, "allowed"), []byte("author@example "+s.PublicKey()+"\n"))
			message := PAE(e.PayloadType, e.Payload)
			verify := func(namespace string, message []byte) (string, error) {
				return run(t, dir, nil, message, "ssh-keygen", "-Y", "verify", "-f", "allowed", "-I", "author@example", "-n", namespace, "-s", "sig")
			}
			out, err := verify("deployment@zos", message)
			if err != nil || !strings.Contains(out, s.KeyID()) {
				t.Errorf("ssh-keygen refuses ours: %v\n%s", err, out)
			}
			if out, err := verify("stop@zos", message); err == nil {
				t.Errorf("ssh-keygen takes another namespace: %s", out)
			}
			if out, err := verify("deployment@zos", e.Payload); err == nil {
				t.Errorf("ssh-keygen takes another message: %s", out)
			}
		})
	}
}

func write(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// inAgent puts a new key into the agent and removes its file.
func inAgent(t *testing.T, socket, kind string) Signer {
	t.Helper()
	path, public := keyFile(t, kind, "")
	must(t, "", []string{"SSH_AUTH_SOCK=" + socket}, nil, "ssh-add", "-q", path)
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	s, err := AgentSigner(socket, public)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestWeAcceptKeygens: what ssh-keygen -Y sign made, with a key file and
// through an ssh-agent, stands in an envelope like our own.
func TestWeAcceptKeygens(t *testing.T) {
	needs(t, "ssh-keygen", "ssh-agent", "ssh-add")
	socket := sshAgent(t)
	for _, kind := range []string{"ed25519", "ecdsa"} {
		for _, through := range []string{"file", "agent"} {
			t.Run(kind+" through "+through, func(t *testing.T) {
				path, public := keyFile(t, kind, "")
				env := []string{}
				use := path
				if through == "agent" {
					env = append(env, "SSH_AUTH_SOCK="+socket)
					must(t, "", env, nil, "ssh-add", "-q", path)
					if err := os.Remove(path); err != nil {
						t.Fatal(err)
					}
					use = path + ".pub"
				}
				e := &Envelope{PayloadType: deploymentType, Payload: []byte(`{"a":1}`)}
				made := func(namespace string, args ...string) Signature {
					file := filepath.Join(t.TempDir(), "message")
					write(t, file, PAE(e.PayloadType, e.Payload))
					must(t, "", env, nil, "ssh-keygen", append([]string{"-q", "-Y", "sign", "-n", namespace, "-f", use}, append(args, file)...)...)
					armored, err := os.ReadFile(file + ".sig")
					if err != nil {
						t.Fatal(err)
					}
					sig, err := sshsig.Unarmor(armored)
					if err != nil {
						t.Fatal(err)
					}
					id, err := Fingerprint(public)
					if err != nil {
						t.Fatal(err)
					}
					return Signature{id, sig.Marshal()}
				}
				e.Signatures = []Signature{made("deployment@zos")}
				raw, err := e.Encode()
				if err != nil {
					t.Fatal(err)
				}
				back, err := DecodeEnvelope(raw)
				if err != nil {
					t.Fatal(err)
				}
				keys, err := back.Keys()
				if err != nil || len(keys) != 1 || keys[0] != public {
					t.Errorf("signed by %v (%v), want %s", keys, err, public)
				}
				e.Signatures = []Signature{made("stop@zos")}
				_, err = e.Keys()
				refused(t, err, "signatures[0].sig", `namespace "stop@zos"`)
				e.Signatures = []Signature{made("deployment@zos", "-O", "hashalg=sha256")}
				_, err = e.Keys()
				refused(t, err, "signatures[0].sig", "uses sha256, want sha512")
			})
		}
	}
	t.Run("rsa", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "key")
		must(t, "", nil, nil, "ssh-keygen", "-q", "-t", "rsa", "-b", "2048", "-N", "", "-f", path)
		if _, err := LoadSigner(path, nil); err == nil || !strings.Contains(err.Error(), "ssh-rsa are not accepted") {
			t.Errorf("an RSA key gave %v", err)
		}
	})
}
