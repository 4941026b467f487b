// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/metrics"
	"github.com/zos-node/zos/ledger/tiles"
)

// mirrorOptions are the flags of zos ledger mirror.
type mirrorOptions struct {
	serveOptions
	ledgerFlags
	every time.Duration
	once  bool
}

func ledgerMirrorCommand(a *app) *cobra.Command {
	var o mirrorOptions
	cmd := &cobra.Command{
		Use:   "mirror DIR --ledger URL[,URL…] --root ROOT",
		Short: "keep a checked copy of a ledger, and serve it",
		Long: `Copy a ledger into a folder and keep it up to date: every signature, entry and
rule is checked, and every file is computed from the entries. The folder can be
carried by any web server or bucket; --listen serves it from here. Name several
ledgers, and each is held against the others; what one did is said.

--once copies what there is and ends.

Exit codes: 0 done, or ended when asked; 1 failed, 3 no ledger is believed (with
--once, or the copy itself is damaged), 5 none was reached (with --once).`,
		Example: `  zos ledger mirror ./copy --ledger https://ledger-1.example,https://ledger-2.example --root root.json --listen :8480
  zos ledger mirror /var/www/ledger --root root.json --once --json`,
		Args: exactly(1, "the folder of the copy"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.ledgerMirror(cmd.Context(), o, args[0]) },
	}
	o.serveOptions.add(cmd)
	o.ledgerFlags.add(cmd)
	if err := cmd.Flags().MarkHidden("state"); err != nil {
		panic(err) // the flag was added just above
	}
	cmd.Flags().Lookup("listen").DefValue, o.listen = "", ""
	cmd.Flags().DurationVar(&o.every, "every", 2*time.Second, "how often to look for news")
	cmd.Flags().BoolVar(&o.once, "once", false, "copy what there is and end")
	return cmd
}

func (a *app) ledgerMirror(ctx context.Context, o mirrorOptions, dir string) error {
	if o.every <= 0 || o.snapshots < 1 {
		return coded(exitUsage, fmt.Errorf("--every %s, --snapshot-every %d: want a time and a number of entries above 0, such as 2s and 10000", o.every, o.snapshots))
	}
	root, err := o.rootEnvelope()
	if err != nil {
		return err
	}
	if err := o.there(); err != nil {
		return err
	}
	if err := o.addresses(); err != nil {
		return err
	}
	if o.listen != "" {
		if err := checkListen("listen", o.listen); err != nil {
			return err
		}
	}
	log := a.logger(o.verbose)
	said := map[string]string{}
	m, err := ledger.OpenMirror(ctx, dir, o.snapshots, ledger.ClientConfig{
		Root: root, Ledgers: o.ledgers, StaleAfter: time.Minute,
		OnRefused: func(where string, err error) {
			if said[where] != err.Error() {
				said[where] = err.Error()
				log.Warn("a ledger was refused", "part", "mirror", "ledger", where, "err", harmlessLines(err.Error()))
			}
		},
	})
	if err != nil {
		return ledgerError(err)
	}
	if o.once {
		if err := m.Sync(ctx); err != nil {
			return ledgerError(err)
		}
		c := m.Client()
		return a.print(struct {
			Size    int64                 `json:"size"`
			Root    string                `json:"root"`
			Ledgers []ledger.LedgerStatus `json:"ledgers"`
		}{c.State().Size(), c.State().RootHash(), c.Ledgers()}, func(w io.Writer) {
			fmt.Fprintf(w, "%s has %d entries, root %s\n", dir, c.State().Size(), c.State().RootHash())
			for _, s := range c.Ledgers() {
				fmt.Fprintf(w, "  %-12s %s %s\n", s.State, s.Ledger, harmless(s.Error))
			}
		})
	}
	if o.listen == "" {
		return a.follow(ctx, o, m, log)
	}
	l, err := o.open(log)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	failed := make(chan struct{})
	var why error
	go func() {
		defer close(failed)
		why = a.follow(ctx, o, m, log)
	}()
	err = a.serve(ctx, o.serveOptions, l, serving{
		what: "mirror", size: m.Client().State().Size(), log: log, set: metrics.New(metrics.Mirror(m)), failed: failed, why: func() error { return why },
		handler: ledger.Handler(tiles.Dir(dir), m, log),
	})
	stop()
	<-failed
	return errors.Join(err, why)
}

// follow copies until it is asked to stop. A ledger that cannot be reached or
// believed is waited for; a disk that cannot be written is the end.
func (a *app) follow(ctx context.Context, o mirrorOptions, m *ledger.Mirror, log *slog.Logger) error {
	again := time.NewTicker(o.every)
	defer again.Stop()
	for {
		err := m.Sync(ctx)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil:
		case errors.Is(err, ledger.ErrForged), errors.Is(err, ledger.ErrFork), errors.Is(err, ledger.ErrRollback), errors.Is(err, ledger.ErrUnreachable):
			log.Debug("nothing was copied", "part", "mirror", "err", err)
		default:
			return err
		}
		select {
		case <-again.C:
		case <-ctx.Done():
			return nil
		}
	}
}
