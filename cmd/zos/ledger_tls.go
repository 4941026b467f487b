// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"
)

// ownCertificate is one that is read again when its files change: those who renew it
// every few weeks do not start the server again for it.
type ownCertificate struct {
	cert, key string // files
	log       *slog.Logger

	mu   sync.Mutex
	seen [2]stamp // of the files when they were read last, with success or without
	pair *tls.Certificate
}

// stamp tells a file from another one that took its place.
type stamp struct {
	at   time.Time
	size int64
}

// openCertificate reads a certificate for the first time; it has to be right then.
func openCertificate(cert, key string, log *slog.Logger) (*ownCertificate, error) {
	c := &ownCertificate{cert: cert, key: key, log: log, seen: stamps(cert, key)}
	var err error
	c.pair, err = c.read()
	return c, err
}

func stamps(files ...string) (all [2]stamp) {
	for i, f := range files {
		if info, err := os.Stat(f); err == nil {
			all[i] = stamp{info.ModTime(), info.Size()}
		}
	}
	return all
}

func (c *ownCertificate) read() (*tls.Certificate, error) {
	cert, err := readFile(c.cert, "a certificate chain", maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-cert: %w", err)
	}
	key, err := readFile(c.key, "a key", maxKeyFile)
	if err != nil {
		return nil, fmt.Errorf("--tls-key: %w", err)
	}
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		return nil, fmt.Errorf("certificate: %w", err)
	}
	return &pair, nil
}

// get is tls.Config.GetCertificate. Where the new files cannot be used, the old
// certificate stays, and that is said once: one of two files may just be late.
func (c *ownCertificate) get(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := stamps(c.cert, c.key)
	if now == c.seen {
		return c.pair, nil
	}
	c.seen = now
	pair, err := c.read()
	if err != nil {
		c.log.Error("the certificate changed and cannot be used; the one before stays", "part", "ledger", "err", err)
		return c.pair, nil
	}
	c.pair = pair
	c.log.Info("the certificate was read again", "part", "ledger", "file", c.cert)
	return c.pair, nil
}
