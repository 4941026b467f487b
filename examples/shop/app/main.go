// SPDX-License-Identifier: Apache-2.0

// Command app is the example's web service: one static program, the only one
// in its image.
//
//	GET /         {"host":…,"version":…,"uptimeMs":…,"greeting":…}
//	GET /healthz  200 while it serves
//	GET /canary   /data/canary, read from the image's disk
//
// The canary is a file that nothing else reads. Whoever alters the disk of a
// running machine there sees the kernel of the guest refuse the next request
// for it, and the machine end.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"syscall"
	"time"
)

const (
	version  = "1.0.0"
	greeting = "hello from a signed deployment"
	listen   = ":8080"
	canary   = "/data/canary"
	lastWord = 5 * time.Second // for requests in progress, after SIGTERM
)

func main() {
	log := slog.New(slog.NewTextHandler(os.Stdout, nil))
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", listen)
	if err == nil {
		log.Info("serving", "address", l.Addr().String(), "version", version)
		err = serve(ctx, l, handler(log, time.Now(), canary))
	}
	if err != nil {
		log.Error("ended", "err", err)
		os.Exit(1)
	}
	log.Info("stopped")
}

// serve serves until the context ends and requests in progress are done.
func serve(ctx context.Context, l net.Listener, h http.Handler) error {
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	select {
	case err := <-done:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastWord)
	defer cancel()
	if err := srv.Shutdown(last); err != nil {
		return errors.Join(fmt.Errorf("stop serving: %w", err), srv.Close())
	}
	return nil
}

// state is what / tells.
type state struct {
	Host     string `json:"host"`
	Version  string `json:"version"`
	UptimeMs int64  `json:"uptimeMs"`
	Greeting string `json:"greeting"`
}

func handler(log *slog.Logger, started time.Time, canary string) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		host, err := os.Hostname()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(state{host, version, time.Since(started).Milliseconds(), greeting}); err != nil {
			log.Warn("answer broke off", "err", err)
		}
	})
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusOK)
	})
	mux.HandleFunc("GET /canary", func(w http.ResponseWriter, _ *http.Request) {
		f, err := os.Open(canary)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		_, err = io.Copy(w, f)
		if err = errors.Join(err, f.Close()); err != nil {
			log.Warn("canary broke off", "err", err)
		}
	})
	return logged(log, mux)
}

// logged writes a line per request, except for the health check's.
func logged(log *slog.Logger, h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		h.ServeHTTP(w, r)
		if r.URL.Path != "/healthz" {
			log.Info("request", "method", r.Method, "path", r.URL.Path, "from", r.RemoteAddr, "took", time.Since(start))
		}
	})
}
