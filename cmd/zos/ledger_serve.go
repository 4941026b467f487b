// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/bft"
	"github.com/zos-node/zos/ledger/metrics"
)

// serveOptions are the flags of commands that serve a log.
type serveOptions struct {
	listen, metrics string
	cert, key       string
	verbose         bool
	snapshots       int64
	quota           ledger.Quota
	keep            int64
	archives        []string
	reserve         int64
}

func (o *serveOptions) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&o.listen, "listen", defaultLedger, "address to listen on; port 0 takes a free one")
	f.StringVar(&o.metrics, "metrics", "", "address for Prometheus, such as 127.0.0.1:9470; none if empty")
	f.StringVar(&o.cert, "tls-cert", "", "certificate chain (PEM): serve HTTPS")
	f.StringVar(&o.key, "tls-key", "", "key of the certificate (PEM)")
	f.Int64Var(&o.snapshots, "snapshot-every", 10_000, "entries between two snapshots of the state")
	f.BoolVar(&o.verbose, "verbose", false, "log what the consensus engine says")
}

func ledgerServeCommand(a *app) *cobra.Command {
	var o serveOptions
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "order entries and serve the log over HTTP",
		Long: `Run the ledger of a folder that zos ledger init or join made: order what is
submitted, together with the other validators if there are any, and serve the
log's static files. When it is ready it prints one line with its address.
Everything is on the disk, and cosigned, before a receipt is given; it can be
killed at any moment. Ctrl-C or SIGTERM ends it in order.

--keep lets it forget the bundles of old entries once a snapshot covers them; hashes
and proofs stay. Mirrors keep everything: name one with --archive.

HTTPS keeps submissions private on their way; nobody has to trust it, as
receipts are proofs. Readers take certificates of their system's authorities, or
of the file in SSL_CERT_FILE. A certificate that is renewed is read again by itself.

Exit codes: 0 ended when asked, 1 could not go on, 4 no such folder.`,
		Example: `  zos ledger serve ./ledger
  zos ledger serve ./ledger --listen :443 --tls-cert fullchain.pem --tls-key key.pem --quota 20 --metrics 127.0.0.1:9470`,
		Args: exactly(1, "the ledger's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.quota.Burst = 10 * o.quota.Rate
			if o.keep < 0 || o.reserve < 0 || o.snapshots < 1 {
				return coded(exitUsage, errors.New("--keep, --reserve and --snapshot-every want numbers that are not negative, and snapshots are some entries apart"))
			}
			if !(o.quota.Rate >= 0 && o.quota.Rate <= 1e9) { // nor what is no number
				return coded(exitUsage, fmt.Errorf("--quota %g: want entries a second, 0 for no limit", o.quota.Rate))
			}
			for _, archive := range o.archives {
				if !isURL(archive) {
					return coded(exitUsage, fmt.Errorf("--archive %q: want the http(s)://host[:port][/path] of a mirror; readers are sent there", archive))
				}
			}
			return a.ledgerServe(cmd.Context(), args[0], o)
		},
	}
	o.add(cmd)
	cmd.Flags().Int64Var(&o.keep, "keep", 0, "prune: keep the bundles of that many newest entries and what the snapshot needs; 0 keeps all")
	cmd.Flags().StringSliceVar(&o.archives, "archive", nil, "URL of a mirror that has what is pruned; readers who need it are told")
	cmd.Flags().Int64Var(&o.reserve, "reserve", 256, "MiB of the disk that stay free: with less, entries are refused; 0 is none")
	cmd.Flags().Float64Var(&o.quota.Rate, "quota", 0, "entries a second that one key may have ordered by this server, ten times as many at once; with n validators, each of which counts for itself, a key gets up to n times that; 0 is no limit")
	return cmd
}

// checkListen refuses what is no address to listen on.
func checkListen(flag, address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return coded(exitUsage, fmt.Errorf("--%s %q: want HOST:PORT, such as 127.0.0.1:0 for a free port: %w", flag, address, err))
	}
	return nil
}

// addresses refuses flags that cannot be right.
func (o *serveOptions) addresses() error {
	if o.metrics == "" {
		return nil
	}
	return checkListen("metrics", o.metrics)
}

// listen opens a port, and says what is in the way.
func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	switch {
	case err == nil:
		return l, nil
	case errors.Is(err, unix.EADDRINUSE):
		return nil, fmt.Errorf("%w: another program, perhaps another ledger, listens there; --%s takes another address", err, flag)
	case errors.Is(err, unix.EADDRNOTAVAIL):
		return nil, fmt.Errorf("%w: this machine has no such address; --%s wants one of its own, or 0.0.0.0 for all", err, flag)
	case errors.Is(err, unix.EACCES):
		return nil, fmt.Errorf("%w: ports below 1024 want the capability CAP_NET_BIND_SERVICE; --%s takes another one", err, flag)
	}
	return nil, fmt.Errorf("%w; --%s takes another address", err, flag)
}

func (a *app) logger(verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
}

// lockFolder keeps a second server from a ledger's folder: it would clear away
// what the first is writing, and fail later with words of the database. The
// lock ends with the process.
func lockFolder(dir string) (unlock func() error, err error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, fileError(fmt.Errorf("ledger: %w", err))
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			err = fmt.Errorf("another zos ledger serve uses %s; end it first, or follow it with zos ledger mirror into a folder of its own", dir)
		}
		return nil, errors.Join(err, f.Close())
	}
	return f.Close, nil
}

func (a *app) ledgerServe(ctx context.Context, dir string, o serveOptions) (err error) {
	if err := errors.Join(checkListen("listen", o.listen), o.addresses()); err != nil {
		return err
	}
	log := a.logger(o.verbose)
	if _, err := os.Stat(dir); err != nil {
		return fileError(fmt.Errorf("ledger: %w", err))
	}
	if _, err := os.Stat(filepath.Join(dir, "root.json")); err != nil {
		return fileError(fmt.Errorf("%s is no ledger folder; make one with `zos ledger init`: %w", dir, err))
	}
	unlock, err := lockFolder(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	l, err := o.open(log)
	if err != nil {
		return err
	}
	engine, err := bft.Open(ctx, dir, bft.Options{Log: log, SnapshotEvery: o.snapshots, Keep: o.keep, Archives: o.archives, Reserve: cmp.Or(o.reserve<<20, -1), Quota: o.quota})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	set := metrics.New(engine.Values())
	return a.serve(ctx, o, l, serving{
		what: "ledger", size: engine.State().Size(), log: log, set: set, failed: engine.Failed(), why: engine.Health,
		handler: ledger.Handler(bft.LogDir(dir), set.Submitter(engine), log),
	})
}

// open listens.
func (o *serveOptions) open(log *slog.Logger) (net.Listener, error) {
	if (o.cert == "") != (o.key == "") {
		return nil, coded(exitUsage, errors.New("--tls-cert and --tls-key go together"))
	}
	l, err := listen("listen", o.listen)
	if err != nil {
		return nil, err
	}
	if o.cert == "" {
		return l, nil
	}
	c, err := openCertificate(o.cert, o.key, log)
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return tls.NewListener(l, &tls.Config{GetCertificate: c.get, MinVersion: tls.VersionTLS13, NextProtos: []string{"http/1.1"}}), nil
}

// serving is a server that is about to run.
type serving struct {
	what    string
	size    int64
	log     *slog.Logger
	set     *metrics.Set
	handler http.Handler
	failed  <-chan struct{}
	why     func() error
}

// serve runs it until it is asked to stop or cannot go on.
func (a *app) serve(ctx context.Context, o serveOptions, l net.Listener, s serving) (err error) {
	ended := make(chan error, 2)
	server := ledger.NewServer(s.handler)
	go func() { ended <- server.Serve(l) }()
	servers := []*http.Server{server}
	if o.metrics != "" {
		m, err := listen("metrics", o.metrics)
		if err != nil {
			return errors.Join(err, server.Close())
		}
		own := ledger.NewServer(s.set.Handler())
		servers = append(servers, own)
		go func() { ended <- own.Serve(m) }()
		s.log.Info("metrics", "part", "ledger", "url", "http://"+m.Addr().String()+"/metrics")
	}
	scheme := "http://"
	if o.cert != "" {
		scheme = "https://"
	}
	url := scheme + l.Addr().String()
	if err := a.print(struct {
		URL  string `json:"url"`
		Size int64  `json:"size"`
	}{url, s.size}, func(w io.Writer) {
		fmt.Fprintf(w, "%s ready on %s\n", s.what, url)
	}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		s.log.Info("stopping", "part", "ledger")
	case <-s.failed:
		err = s.why()
	case err = <-ended:
		return fmt.Errorf("serve: %w", err)
	}
	// The parent context is over already: requests get a time of their own.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	for _, server := range servers {
		if stop := server.Shutdown(grace); stop != nil && !errors.Is(stop, http.ErrServerClosed) {
			err = errors.Join(err, fmt.Errorf("stop: %w", stop), server.Close())
		}
	}
	return err
}

// stopGrace is how long requests may take to end. net/http waits up to six
// seconds for a connection on which no request has come, such as a client opens
// in reserve, so it must be longer than that.
const stopGrace = 10 * time.Second
