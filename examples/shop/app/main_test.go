// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestService(t *testing.T) {
	data := bytes.Repeat([]byte("canary"), 1000)
	file := filepath.Join(t.TempDir(), "canary")
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- serve(ctx, l, handler(slog.New(slog.DiscardHandler), time.Now(), file)) }()
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	get := func(path string) (int, []byte) {
		resp, err := http.Get("http://" + l.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return resp.StatusCode, b
	}
	code, b := get("/")
	var s state
	if err := json.Unmarshal(b, &s); err != nil || code != http.StatusOK || s.Host != host || s.Greeting != greeting || s.Version != version {
		t.Errorf("/: %d %s %v", code, b, err)
	}
	if code, b := get("/canary"); code != http.StatusOK || !bytes.Equal(b, data) {
		t.Errorf("/canary: %d, %d bytes", code, len(b))
	}
	if code, _ := get("/healthz"); code != http.StatusOK {
		t.Errorf("/healthz: %d", code)
	}
	if code, _ := get("/none"); code != http.StatusNotFound {
		t.Errorf("/none: %d", code)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("stop: %v", err)
	}
}
