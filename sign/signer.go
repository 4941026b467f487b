// SPDX-License-Identifier: Apache-2.0

package sign

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"

	"github.com/hiddeco/sshsig"
	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// Signer makes SSHSIGs with one key.
type Signer interface {
	PublicKey() string // authorized_keys form without comment
	KeyID() string     // its OpenSSH fingerprint
	Sign(namespace string, message []byte) ([]byte, error)
}

// fileSigner holds the private key in memory.
type fileSigner struct {
	key    key
	signer ssh.Signer
}

func (s *fileSigner) PublicKey() string { return s.key.String() }
func (s *fileSigner) KeyID() string     { return s.key.fingerprint() }

func (s *fileSigner) Sign(namespace string, message []byte) ([]byte, error) {
	return signSSH(s.signer, namespace, message)
}

func signSSH(s ssh.Signer, namespace string, message []byte) ([]byte, error) {
	sig, err := sshsig.Sign(bytes.NewReader(message), s, sshsig.HashSHA512, namespace)
	if err != nil {
		return nil, err
	}
	return sig.Marshal(), nil
}

func newFileSigner(s ssh.Signer) (Signer, error) {
	k, err := acceptKey(s.PublicKey())
	if err != nil {
		return nil, err
	}
	return &fileSigner{k, s}, nil
}

// NewSigner signs with a raw ed25519 key.
func NewSigner(private ed25519.PrivateKey) (Signer, error) {
	if len(private) != ed25519.PrivateKeySize {
		return nil, fmt.Errorf("an ed25519 private key has %d bytes, this one %d", ed25519.PrivateKeySize, len(private))
	}
	s, err := ssh.NewSignerFromKey(private)
	if err != nil {
		return nil, fmt.Errorf("use the ed25519 key: %w", err)
	}
	return newFileSigner(s)
}

// GenerateSigner makes a new ed25519 key; the second result is its OpenSSH
// private key file, for LoadSigner and for ssh-keygen.
func GenerateSigner() (Signer, []byte, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make an ed25519 key: %w", err)
	}
	block, err := ssh.MarshalPrivateKey(private, "")
	if err != nil {
		return nil, nil, fmt.Errorf("encode the ed25519 key: %w", err)
	}
	s, err := NewSigner(private)
	if err != nil {
		return nil, nil, err
	}
	return s, pem.EncodeToMemory(block), nil
}

// ParseSigner reads the text of a private key file without a passphrase.
func ParseSigner(text []byte) (Signer, error) {
	s, err := ssh.ParsePrivateKey(text)
	if err != nil {
		return nil, fmt.Errorf("read private key: %w", err)
	}
	return newFileSigner(s)
}

// LoadSigner reads a private key file. The callback is asked for the
// passphrase only when the file has one; it may be nil.
func LoadSigner(path string, passphrase func() ([]byte, error)) (Signer, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	if open := info.Mode().Perm() & 0o077; open != 0 {
		return nil, fmt.Errorf("key %s has mode %04o, others can read it: chmod 600 it", path, info.Mode().Perm())
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read key: %w", err)
	}
	s, err := ssh.ParsePrivateKey(text)
	var locked *ssh.PassphraseMissingError
	if errors.As(err, &locked) {
		if passphrase == nil {
			return nil, fmt.Errorf("key %s is protected by a passphrase, and there is nobody to ask for it", path)
		}
		secret, askErr := passphrase()
		if askErr != nil {
			return nil, fmt.Errorf("passphrase of key %s: %w", path, askErr)
		}
		s, err = ssh.ParsePrivateKeyWithPassphrase(text, secret)
		clear(secret)
	}
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	signer, err := newFileSigner(s)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", path, err)
	}
	return signer, nil
}

// agentSigner asks an ssh-agent, on a new connection each time: it is not
// ours to keep the agent's socket open.
type agentSigner struct {
	socket string
	key    key
}

// AgentSigner signs with a key whose private half is in an ssh-agent, such as
// a key on a token. socket is the agent's address ($SSH_AUTH_SOCK).
func AgentSigner(socket, publicKey string) (Signer, error) {
	if socket == "" {
		return nil, errors.New("there is no ssh-agent: SSH_AUTH_SOCK is not set")
	}
	k, err := parseKey(publicKey)
	if err != nil {
		return nil, fmt.Errorf("public key %w", err)
	}
	s := &agentSigner{socket, k}
	return s, s.with(func(ssh.Signer) error { return nil })
}

func (s *agentSigner) PublicKey() string { return s.key.String() }
func (s *agentSigner) KeyID() string     { return s.key.fingerprint() }

func (s *agentSigner) Sign(namespace string, message []byte) ([]byte, error) {
	var sig []byte
	err := s.with(func(held ssh.Signer) (err error) {
		sig, err = signSSH(held, namespace, message)
		return err
	})
	return sig, err
}

// with finds the key in the agent and lends its signer to f.
func (s *agentSigner) with(f func(ssh.Signer) error) (err error) {
	conn, err := net.Dial("unix", s.socket)
	if err != nil {
		return fmt.Errorf("reach the ssh-agent: %w", err)
	}
	defer func() { err = errors.Join(err, conn.Close()) }()
	held, err := agent.NewClient(conn).Signers()
	if err != nil {
		return fmt.Errorf("list the keys of the ssh-agent at %s: %w", s.socket, err)
	}
	for _, one := range held {
		if bytes.Equal(one.PublicKey().Marshal(), s.key.Marshal()) {
			// The agent's own type hides the key behind a blob; ours is parsed.
			return f(agentKey{one, s.key})
		}
	}
	return fmt.Errorf("the ssh-agent at %s does not hold key %s: ssh-add it", s.socket, s.key.fingerprint())
}

type agentKey struct {
	ssh.Signer
	key key
}

func (a agentKey) PublicKey() ssh.PublicKey { return a.key.PublicKey }
