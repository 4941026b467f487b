// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
)

// defaultLedger is where `zos ledger serve` listens unless it is told else.
const defaultLedger = "127.0.0.1:8470"

// ledgerCommands are those about what was agreed, in which order.
func ledgerCommands(a *app) []*cobra.Command {
	group := &cobra.Command{Use: "ledger", Short: "make, serve and verify ledgers; make vouchers for nodes"}
	group.AddCommand(ledgerInitCommand(a), ledgerServeCommand(a), ledgerDemoCommand(a), ledgerJoinCommand(a), ledgerPeerCommand(a), ledgerInviteCommand(a), ledgerLeaveCommand(a), ledgerMirrorCommand(a), ledgerBackupCommand(a), ledgerRestoreCommand(a), revokeCommand(a), ledgerVerifyCommand(a), voucherCommand(a))
	return []*cobra.Command{group, submitCommand(a), stopCommand(a), statusCommand(a), historyCommand(a), auditCommand(a)}
}

// given marks flags that have to be on the command line.
func given(cmd *cobra.Command, flags ...string) {
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		for _, name := range flags {
			if !cmd.Flags().Changed(name) {
				return coded(exitUsage, fmt.Errorf("--%s is needed; see %s --help", name, cmd.CommandPath()))
			}
		}
		return nil
	}
}

// ledgerFlags are those of every command that reads a ledger.
type ledgerFlags struct {
	ledgers []string
	root    string
	state   string
	maxAge  time.Duration // how old the newest signatures may be; 0: that is only said

	turns bool // keep why nodes were allowed to claim
	// whole starts from entry 0 and keeps every entry, for those few commands that
	// look at entries. All others start from a snapshot: a server that prunes has no
	// more, and a long log takes a minute.
	whole bool
}

// addMaxAge registers --max-age, for commands that show what a ledger says.
func (f *ledgerFlags) addMaxAge(cmd *cobra.Command) {
	cmd.Flags().DurationVar(&f.maxAge, "max-age", 0, "refuse a log whose newest signatures are older, by this clock")
	cmd.PreRunE = func(cmd *cobra.Command, _ []string) error {
		if cmd.Flags().Changed("max-age") && f.maxAge <= 0 {
			return coded(exitUsage, fmt.Errorf("--max-age %s: want a time above 0, such as 5m", f.maxAge))
		}
		return nil
	}
}

// fresh refuses a ledger that is too old for --max-age.
func (f *ledgerFlags) fresh(c *ledger.Client) error {
	if f.maxAge <= 0 {
		return nil
	}
	return f.tooOld(c.Within(f.maxAge, time.Now()))
}

// tooOld gives the refusal of a log that stands still its exit code.
func (f *ledgerFlags) tooOld(err error) error {
	if errors.Is(err, ledger.ErrFrozen) {
		return coded(exitRefused, fmt.Errorf("every entry is right, but it is older than --max-age %s allows: %w", f.maxAge, err))
	}
	return err
}

// add registers the flags. Reading commands verify, and cannot without a root.
func (f *ledgerFlags) add(cmd *cobra.Command) {
	where := []string{"http://" + defaultLedger}
	if env := os.Getenv("ZOS_LEDGER"); env != "" {
		where = strings.Split(env, ",")
	}
	cmd.Flags().StringSliceVar(&f.ledgers, "ledger", where, "URL or folder of a ledger, none is trusted; several are tried in turn (ZOS_LEDGER)")
	cmd.Flags().StringVar(&f.root, "root", os.Getenv("ZOS_ROOT"), "trust root envelope (ZOS_ROOT)")
	cmd.Flags().StringVar(&f.state, "state", "", "file that remembers the last checkpoint, to notice a ledger that was rolled back or forked")
}

// addNeeded is add for commands that guess no ledger; given checks it.
func (f *ledgerFlags) addNeeded(cmd *cobra.Command) {
	f.add(cmd)
	if os.Getenv("ZOS_LEDGER") == "" {
		cmd.Flags().Lookup("ledger").DefValue = "[]" // and the help shows none
	}
}

// rootEnvelope reads the trust root's envelope.
func (f *ledgerFlags) rootEnvelope() ([]byte, error) {
	if f.root == "" {
		return nil, coded(exitUsage, errors.New("--root is needed (or ZOS_ROOT): the trust root, root.json in the folder that `zos ledger init` made"))
	}
	if _, err := trustRoot(f.root); err != nil {
		return nil, err
	}
	b, err := readFile(f.root, "a trust root", ledger.MaxEntry+1)
	if err != nil {
		return nil, fileError(fmt.Errorf("trust root: %w", err))
	}
	return bytes.TrimSpace(b), nil
}

// isURL says whether there can be a log behind an address.
func isURL(where string) bool {
	u, err := url.Parse(where)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.RawQuery == "" && u.User == nil
}

// there refuses what is no address of a ledger and folders that hold none:
// slips of the keyboard, which say nothing about a ledger.
func (f *ledgerFlags) there() error {
	if f.state != "" {
		if err := regularOrAbsent(f.state, "the state of the last look"); err != nil {
			return fmt.Errorf("--state: %w", err)
		}
	}
	if len(f.ledgers) == 0 {
		return coded(exitUsage, errors.New("--ledger names no ledger: want its URL or folder"))
	}
	for _, where := range f.ledgers {
		if strings.Contains(where, "://") {
			if !isURL(where) {
				return coded(exitUsage, fmt.Errorf("--ledger %q: want http(s)://host[:port][/path] or a folder", where))
			}
			continue
		}
		if _, err := os.Stat(where); err != nil {
			return fileError(fmt.Errorf("ledger: %w", err))
		}
		_, inside := os.Stat(filepath.Join(where, "log", "checkpoint"))
		_, here := os.Stat(filepath.Join(where, "checkpoint"))
		if inside != nil && here != nil {
			return coded(exitNotFound, fmt.Errorf("ledger %s: there is no checkpoint in that folder; want the folder of `zos ledger init` or a copy of its log/, or a URL", where))
		}
	}
	return nil
}

// server refuses flags that name only folders: whoever submits needs somebody
// who takes the entry.
func (f *ledgerFlags) server() error {
	if err := f.there(); err != nil {
		return err
	}
	if !slices.ContainsFunc(f.ledgers, func(where string) bool { return strings.Contains(where, "://") }) {
		return coded(exitUsage, fmt.Errorf("--ledger %s is a folder, which takes no entries; want the URL of a ledger server, the one that `zos ledger serve` printed", strings.Join(f.ledgers, ",")))
	}
	return nil
}

// sync opens a client and brings it up to the newest checkpoint.
func (a *app) sync(ctx context.Context, f ledgerFlags) (*ledger.Client, error) {
	root, err := f.rootEnvelope()
	if err != nil {
		return nil, err
	}
	if err := f.there(); err != nil {
		return nil, err
	}
	var patience time.Duration
	if len(f.ledgers) > 1 {
		patience = time.Minute // one of several is always a little behind
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{
		Root: root, Ledgers: f.ledgers, StateFile: f.state, KeepEntries: f.whole, Snapshot: !f.whole, Turns: f.turns, StaleAfter: patience, Progress: a.entriesDone("ledger"),
		OnRefused: func(where string, err error) {
			if len(f.ledgers) > 1 { // of a single one, the error says it
				a.clearBar()
				fmt.Fprintf(a.err, "warning: %s: %s\n", where, harmlessLines(err.Error()))
			}
		},
	})
	if err != nil {
		return nil, coded(exitRefused, err)
	}
	if err := c.Sync(ctx); err != nil {
		return nil, ledgerError(err)
	}
	return c, nil
}

// ledgerError gives an error of the ledger its exit code, and says what to do.
func ledgerError(err error) error {
	var refused *ledger.Refused
	var busy *ledger.Busy
	switch {
	case errors.Is(err, ledger.ErrCopy):
		return coded(exitRefused, fmt.Errorf("%w\nno ledger was asked; check that --root belongs to this copy, else move its folder away and copy again: the ledgers have every byte of it", err))
	case errors.Is(err, ledger.ErrFork), errors.Is(err, ledger.ErrRollback):
		return coded(exitRefused, fmt.Errorf("%w\nkeep the state file and a copy of both ledgers: together they are the proof", err))
	case errors.Is(err, ledger.ErrWord):
		return coded(exitRefused, fmt.Errorf("%w\nby the log it could stand there, so this is their word alone; see to what they say, or name another --ledger", err))
	case errors.Is(err, ledger.ErrForged):
		return coded(exitRefused, fmt.Errorf("%w\nnothing was taken from it; check that --root belongs to this ledger, or name another --ledger", err))
	case errors.Is(err, ledger.ErrPruned):
		return coded(exitUnreachable, fmt.Errorf("%w\nname an archive with --ledger, alone or beside this one: it need not be trusted", err))
	case errors.As(err, &busy):
		// It was reached: a word about its address would be wrong.
		return coded(exitUnreachable, fmt.Errorf("the ledger takes no entry now: %w\n%s", err, waiting(busy)))
	case errors.Is(err, ledger.ErrUnreachable):
		return coded(exitUnreachable, fmt.Errorf("%w\nis `zos ledger serve` running, and is --ledger (ZOS_LEDGER) its address?", err))
	// Last: a ledger that is not believed can hold a refusal inside.
	case errors.As(err, &refused):
		return coded(exitRefused, fmt.Errorf("the ledger refuses it: %w", err))
	}
	return err
}

// waiting says what to do about a server that was reached and is busy.
func waiting(busy *ledger.Busy) string {
	when := "later"
	if busy.After > 0 {
		when = "in " + busy.After.String()
	}
	if busy.Quota {
		return "submit the same again " + when + ": it has one place only; the operator sets the share of a key with zos ledger serve --quota"
	}
	return "submit the same again " + when + ", or to another --ledger: it has one place only"
}

func ledgerVerifyCommand(a *app) *cobra.Command {
	var f ledgerFlags
	cmd := &cobra.Command{
		Use:   "verify [URL|DIR]",
		Short: "check a whole ledger: signatures, tiles, every entry, every rule",
		Long: `Read a ledger from its first entry to its last and check everything that can be
checked: the signatures of the checkpoint, every tile and entry against it, and
every entry against the rules by which it may have entered. It also says whether
the log stands still, by this clock: while leases run on it, blocks are due, and
an idle one is signed anew by its validators each minute.

Exit codes: 0 every byte is right (without --max-age also of a log that stands still), 3 the ledger is not to be believed, or is too old for --max-age, 5 not reached.`,
		Example: `  zos ledger verify http://127.0.0.1:8470 --root ledger/root.json
  zos ledger verify http://127.0.0.1:8480 --root root.json --max-age 5m
  zos ledger verify ./copy-of-log --root root.json --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				f.ledgers = args
			}
			f.whole = true
			return a.ledgerVerify(cmd.Context(), f)
		},
	}
	f.add(cmd)
	f.addMaxAge(cmd)
	return cmd
}

// ledgerVerify checks a ledger.
func (a *app) ledgerVerify(ctx context.Context, f ledgerFlags) error {
	start := time.Now()
	c, err := a.sync(ctx, f)
	if err != nil {
		return err
	}
	files, wrong, err := c.Entries().CheckFiles(ctx)
	if err != nil {
		return ledgerError(err)
	}
	if err := errors.Join(wrong...); err != nil {
		return ledgerError(err)
	}
	if err := f.fresh(c); err != nil {
		return err
	}
	s, cp, now := c.State(), c.Checkpoint(), time.Now()
	r := struct {
		Origin      string   `json:"origin"`
		Size        int64    `json:"size"`
		Root        string   `json:"root"`
		TimeMs      int64    `json:"timeMs"`
		SignedMs    int64    `json:"signedMs"` // since when enough validators signed this checkpoint
		RootVersion int64    `json:"rootVersion"`
		Cosigners   []string `json:"cosigners"`
		Nodes       int      `json:"nodes"`
		Deployments int      `json:"deployments"`
		Files       int      `json:"files"`
		TookMs      int64    `json:"tookMs"`
		Frozen      string   `json:"frozen"` // why the log stands still, or ""
	}{s.Root().Log.Origin, cp.N, hex.EncodeToString(cp.Hash[:]), s.TimeMs(), cp.FreshSec * 1000, s.Root().Version, cp.Cosigners, len(s.Nodes()), len(s.Deployments()), files, time.Since(start).Milliseconds(), ""}
	var all string
	all, r.Frozen = standing(c.Frozen(now))
	return a.print(r, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s\n", r.Origin, all)
		fmt.Fprintf(w, "  entries     %d, until %s\n", r.Size, clock(r.TimeMs))
		fmt.Fprintf(w, "  root hash   %s\n", r.Root)
		fmt.Fprintf(w, "  cosigned by %s, at %s\n", strings.Join(r.Cosigners, ", "), clock(r.SignedMs))
		fmt.Fprintf(w, "  trust root  version %d\n", r.RootVersion)
		fmt.Fprintf(w, "  holds       %d nodes, %d deployments\n", r.Nodes, r.Deployments)
		fmt.Fprintf(w, "  checked     every entry, %d files, in %d ms\n", r.Files, r.TookMs)
	})
}

// standing says of a log of which every byte is right how it stands: still is why
// it stands still, or nil.
func standing(still error) (all, frozen string) {
	if still != nil {
		return "every entry is right, but the " + still.Error(), still.Error()
	}
	return "all is well", ""
}

// seenLog is how far a log goes that a command looked at, and how old it is: a copy
// that somebody holds back is right in every byte.
type seenLog struct {
	Origin   string `json:"origin"`
	Size     int64  `json:"size"`
	TimeMs   int64  `json:"timeMs"`   // ledger time of its last block
	SignedMs int64  `json:"signedMs"` // since when enough validators signed its checkpoint
	Frozen   string `json:"frozen"`   // why it stands still by this clock, or ""
}

func seenOf(c *ledger.Client) seenLog {
	s := c.State()
	_, frozen := standing(c.Frozen(time.Now()))
	return seenLog{s.Root().Log.Origin, s.Size(), s.TimeMs(), c.Checkpoint().FreshSec * 1000, frozen}
}

// until says up to when a log goes.
func (l seenLog) until() string {
	return fmt.Sprintf("%s: %d entries until %s, signed at %s", l.Origin, l.Size, clock(l.TimeMs), clock(l.SignedMs))
}

// asOf is what belongs behind what a log that stands still says of the present.
func (l seenLog) asOf() string {
	if l.Frozen == "" {
		return ""
	}
	return ", as of " + clock(l.TimeMs)
}

// warn says that a log stands still, if it does.
func (l seenLog) warn(w io.Writer) {
	if l.Frozen != "" {
		fmt.Fprintf(w, "  WARNING     what came later, if anything, is not in this log: the %s\n", l.Frozen)
	}
}

// clock shows a ledger time.
func clock(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02 15:04:05.000Z") }
