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
	var errs bytes.Buffer
	go func() {
		code <- run(ctx, []string{"ledger", "serve", led, "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key}, out, &errs)
	}()
	defer func() {
		stop()
		if c := <-code; c != 0 {
			t.Errorf("serve ended with %d: %s", c, errs.String())
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
	// Whoever does not know the certificate is not served.
	if _, err := http.Get(url + "/checkpoint"); err == nil {
		t.Error("an unknown certificate was taken")
	}
}
