// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/init/console"
	"github.com/zos-node/zos/init/lastwords"
	"github.com/zos-node/zos/init/power"
)

// screenTime is how long a failure can be read before the machine starts again.
// It is shorter than the watchdog's patience, which nobody feeds any more: the
// restart in order comes first, since only that one keeps the last words.
const screenTime = 45 * time.Second

// failure makes an error that the failure screen can show.
type failure struct {
	console.Failure
	err error
}

func (f *failure) Error() string { return f.What + ": " + f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func fault(code, what, expected, do string, err error) error {
	if err == nil {
		return nil
	}
	return &failure{console.Failure{Code: code, What: what + ": " + err.Error(), Expected: expected, Do: do}, err}
}

// crashOutputs are where a crash of init goes to the kernel's log: a terminal
// that takes whole lines, once its driver is there, and the log's own device,
// where each piece that Go's runtime writes becomes a line.
var crashOutputs = []string{"/dev/ttyprintk", "/dev/kmsg"}

// crashOutput sends what Go's runtime says when it ends PID 1 by itself (a fatal
// error, a panic that nobody recovers) to the kernel's log as well: the kernel
// panics next, and keeps that log.
func (n *node) crashOutput() {
	var errs []error
	for _, name := range crashOutputs {
		f, err := os.OpenFile(name, os.O_WRONLY|unix.O_NOCTTY, 0)
		if err == nil {
			err = errors.Join(debug.SetCrashOutput(f, debug.CrashOptions{}), f.Close())
		}
		if err == nil {
			return
		}
		errs = append(errs, err)
	}
	n.log.Warn("a crash of init will not be kept", "err", errors.Join(errs...))
}

// lastWords shows a panic on all consoles.
func (n *node) lastWords() {
	if p := recover(); p != nil {
		n.fail(fault("PANIC", "a fault in init", "none", "Report this with the lines above.", fmt.Errorf("%v\n%s", p, debug.Stack())))
	}
}

// fail shows what happened for long enough to be read, then starts the
// machine again. It does not return; a second failure waits behind the first.
func (n *node) fail(err error) {
	n.failing.Do(func() {
		f := console.Failure{Code: "INIT", What: err.Error(), Expected: "a node that boots", Do: "Report this."}
		var known *failure
		if errors.As(err, &known) {
			f = known.Failure
		}
		f.Do += fmt.Sprintf("\nThe machine starts again in %s, and tells the ledger of this.", screenTime)
		n.board.close()
		screen := f.Screen()
		fmt.Fprint(n.out, screen)
		// Nothing may run on beside a node that has failed: guests end now, disks
		// are written; then there is time to read.
		n.stop()
		n.shut()
		n.keep(f, screen)
		time.Sleep(screenTime)
		if err := power.Do(power.Reboot); err != nil {
			fmt.Fprintln(n.out, err)
		}
		select {} // PID 1 never returns
	})
}

// keep has the reason stored for after the restart. The driver of the store may
// not be loaded yet: it is one of those that can wait.
func (n *node) keep(f console.Failure, screen string) {
	index, err := openIndex()
	if err == nil {
		err = index.Load("efi_pstore")
	}
	what, _, _ := strings.Cut(f.What, "\n")
	if err = errors.Join(err, lastwords.Keep(f.Code+": "+what, screen)); err != nil {
		n.log.Warn("the reason may not be known after the restart", "err", err)
	}
}

// collect takes up what earlier boots left, for the console and the ledger.
func (n *node) collect() {
	reports, err := lastwords.Collect(lastwords.Pstore)
	if err != nil {
		n.log.Error("last words of earlier boots", "err", err)
	}
	for i, r := range reports {
		n.before(fmt.Sprintf("pstore-%d", i), r)
	}
}

// before is about an earlier boot.
func (n *node) before(name string, r lastwords.Report) {
	n.log.Warn("an earlier boot of this machine ended badly", "kind", r.Kind, "reason", r.Reason())
	n.board.addBefore(r.Kind + ": " + r.Reason())
	n.leave(name, r)
}

// leave hands a report to the agent.
func (n *node) leave(name string, r lastwords.Report) {
	if err := lastwords.Leave(lastwords.Dir, name, r); err != nil {
		n.log.Error("the ledger will not hear of it", "kind", r.Kind, "reason", r.Reason(), "err", err)
	}
}
