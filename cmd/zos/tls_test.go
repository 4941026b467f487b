// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// certificate makes one for loopback and the files of it.
func certificate(t *testing.T) (cert, key string, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for path, block := range map[string]*pem.Block{cert: {Type: "CERTIFICATE", Bytes: der}, key: {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(path, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AddCert(parsed)
	return cert, key, pool
}

func TestServeHTTPS(t *testing.T) {
	dir := t.TempDir()
	led := filepath.Join(dir, "ledger")
	root := keyFile(t, dir, "root")
	zos(t, exitOK, "ledger", "init", led, "--origin", "zos.example/tls", "--role", "operator="+root+".pub:1", "--shared-keys", "--root-key", root, "--require", "deployment=operator")
	cert, key, pool := certificate(t)
	_, e := zos(t, exitUsage, "ledger", "serve", led, "--listen", "127.0.0.1:0", "--tls-cert", cert)
	contains(t, e, "go together")
	ctx, stop := context.WithCancel(context.Background())
	out := &lineWriter{line: make(chan string, 1)}
	code := make(chan int, 1)
	var errs bytes.Buffer // read when serve has ended
	go func() {
		code <- run(ctx, []string{"ledger", "serve", led, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key}, out, &errs)
	}()
	defer func() {
		stop()
		if c := <-code; c != 0 {
			t.Errorf("serve ended with %d: %s", c, errs.String())
		}
		if n := strings.Count(errs.String(), "cannot be used; the one before stays"); n != 3 {
			t.Errorf("%d of 3 files that cannot be used were spoken of, each once:\n%s", n, errs.String())
		}
	}()
	var url string
	select {
	case line := <-out.line:
		_, url, _ = strings.Cut(strings.TrimSpace(line), "ledger ready on ")
	case c := <-code:
		code <- c
		t.Fatalf("serve ended with %d: %s", c, errs.String())
	}
	if !strings.HasPrefix(url, "https://") {
		t.Fatalf("serves on %q", url)
	}
	web := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}}
	defer web.CloseIdleConnections()
	resp, err := web.Get(url + "/checkpoint")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil || resp.TLS.Version != tls.VersionTLS13 || !bytes.HasPrefix(b, []byte("zos.example/tls\n")) {
		t.Errorf("%v: %q", err, b)
	}
	// The next connection after a renewal has the new certificate. In between, when
	// the key is still the old one, and where the file is broken, the old one stays.
	renewed, renewedKey, newer := certificate(t)
	served := func(pool *x509.CertPool) bool {
		fresh := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}
		resp, err := fresh.Get(url + "/checkpoint")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil
	}
	put := func(to, from string) {
		t.Helper()
		b := []byte("no certificate")
		if from != "" {
			if b, err = os.ReadFile(from); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond) // so that the next change has another time
	}
	for _, step := range []struct {
		what, to, from string
		want           *x509.CertPool
	}{
		{"a broken file", cert, "", pool}, {"a certificate without its key", cert, renewed, pool}, {"both", key, renewedKey, newer},
	} {
		put(step.to, step.from)
		if !served(step.want) || served(map[bool]*x509.CertPool{true: newer, false: pool}[step.want == pool]) {
			t.Errorf("after %s: the wrong certificate", step.what)
		}
	}
	if err := os.Remove(cert); err != nil {
		t.Fatal(err)
	}
	if !served(newer) {
		t.Error("without the file: not served")
	}
	// Whoever does not know the certificate is not served.
	if _, err := http.Get(url + "/checkpoint"); err == nil {
		t.Error("an unknown certificate was taken")
	}
}
