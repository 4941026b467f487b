// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
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

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/bft"
)

func ledgerServeCommand(a *app) *cobra.Command {
	var listen string
	var verbose bool
	cmd := &cobra.Command{
		Use:   "serve DIR",
		Short: "order entries and serve the log over HTTP",
		Long: `Run the ledger of a folder that zos ledger init made: order what is submitted,
and serve the log's static files. When it is ready it prints one line with its
address. Everything is on the disk before a receipt is given; it can be killed
at any moment. Ctrl-C or SIGTERM ends it in order.

Exit codes: 0 ended when asked, 1 could not go on, 4 no such folder.`,
		Example: `  zos ledger serve ./ledger
  zos ledger serve ./ledger --listen 127.0.0.1:0`,
		Args: exactly(1, "the ledger's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ledgerServe(cmd.Context(), args[0], listen, verbose)
		},
	}
	cmd.Flags().StringVar(&listen, "listen", defaultLedger, "address to listen on; port 0 takes a free one")
	cmd.Flags().BoolVar(&verbose, "verbose", false, "log what the consensus engine says")
	return cmd
}

// stopGrace is how long requests may take to end.
const stopGrace = 5 * time.Second

// checkListen refuses what is no address to listen on.
func checkListen(address string) error {
	_, port, err := net.SplitHostPort(address)
	if err == nil {
		_, err = strconv.ParseUint(port, 10, 16)
	}
	if err != nil {
		return coded(exitUsage, fmt.Errorf("--listen %q: want HOST:PORT, such as 127.0.0.1:0 for a free port: %w", address, err))
	}
	return nil
}

func (a *app) ledgerServe(ctx context.Context, dir, listen string, verbose bool) (err error) {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	if err := checkListen(listen); err != nil {
		return err
	}
	log := slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: level}))
	if _, err := os.Stat(dir); err != nil {
		return fileError(fmt.Errorf("ledger: %w", err))
	}
	if _, err := os.Stat(filepath.Join(dir, "root.json")); err != nil {
		return fileError(fmt.Errorf("%s is no ledger folder; make one with `zos ledger init`: %w", dir, err))
	}
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return fmt.Errorf("listen: %w; is another ledger running? --listen takes another address", err)
	}
	engine, err := bft.Open(ctx, dir, bft.Options{Log: log})
	if err != nil {
		return errors.Join(err, l.Close())
	}
	defer func() { err = errors.Join(err, engine.Close()) }()
	server := ledger.NewServer(ledger.Handler(bft.LogDir(dir), engine, log))
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	url := "http://" + l.Addr().String()
	if err := a.print(struct {
		URL  string `json:"url"`
		Size int64  `json:"size"`
	}{url, engine.State().Size()}, func(w io.Writer) {
		fmt.Fprintf(w, "ledger ready on %s\n", url)
	}); err != nil {
		return err
	}
	select {
	case <-ctx.Done():
		log.Info("stopping", "part", "ledger")
	case <-engine.Failed():
		err = engine.Health()
	case err = <-ended:
		return fmt.Errorf("serve: %w", err)
	}
	// The parent context is over already: requests get a time of their own.
	grace, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopGrace)
	defer cancel()
	if stop := server.Shutdown(grace); stop != nil && !errors.Is(stop, http.ErrServerClosed) {
		err = errors.Join(err, fmt.Errorf("stop: %w", stop), server.Close())
	}
	return err
}
