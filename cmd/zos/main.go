// SPDX-License-Identifier: Apache-2.0

// Command zos is the operator's tool: it renders, signs and submits
// deployments, serves ledgers and mirrors, builds node images, and checks
// history without trusting anybody. It sends nothing to a node: nodes take
// orders from the ledger alone.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), endings()...)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// endings are the signals that end a command in order: a terminal that closes
// (SIGHUP) too, unless nohup wants it to be lived through.
func endings() []os.Signal {
	all := []os.Signal{os.Interrupt, syscall.SIGTERM}
	if !signal.Ignored(syscall.SIGHUP) {
		all = append(all, syscall.SIGHUP)
	}
	return all
}
