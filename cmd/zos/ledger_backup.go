// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger/bft"
)

// snapshotWait is how long a backup waits for the server's snapshot.
const snapshotWait = time.Minute

func ledgerBackupCommand(a *app) *cobra.Command {
	var out string
	var replace bool
	cmd := &cobra.Command{
		Use:   "backup DIR -o FILE",
		Short: "back up a ledger server while it runs",
		Long: `Write a tar file of a ledger's folder while zos ledger serve runs on it: its keys,
and the log with every entry that had a receipt when this began. The server is
asked for a snapshot of now, so it has to be able to go on.

The file holds private keys: encrypt it (-o - writes to standard output), and never
run two servers of it. A folder on which no server runs can be copied as it is.

Exit codes: 0 written, 1 failed, 3 no server runs on DIR, it has ordered nothing yet or
FILE is there, 4 no such folder, 5 the server made no snapshot in time.`,
		Example: `  zos ledger backup /var/lib/zos-ledger -o ledger.tar
  zos ledger backup /var/lib/zos-ledger -o - | age -R operators.txt > ledger.tar.age`,
		Args: exactly(1, "the ledger's folder"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.ledgerBackup(cmd.Context(), args[0], out, replace)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "file to write, - for standard output")
	cmd.Flags().BoolVar(&replace, "replace", false, "take the place of an older backup, once the new one is whole")
	given(cmd, "output")
	return cmd
}

func (a *app) ledgerBackup(ctx context.Context, dir, out string, replace bool) (err error) {
	if _, err := os.Stat(filepath.Join(dir, "root.json")); err != nil {
		return fileError(fmt.Errorf("%s is no ledger folder: %w", dir, err))
	}
	if unlock, err := lockFolder(dir); err == nil {
		return errors.Join(coded(exitRefused, fmt.Errorf("no zos ledger serve runs on %s, so copy the folder as it is (cp -a)", dir)), unlock())
	}
	to, text := a.out, io.Writer(a.out)
	if out == "-" {
		text = a.err
	} else {
		if err := regularOrAbsent(out, "the backup"); err != nil {
			return err
		}
		if _, err := os.Lstat(out); err == nil && !replace {
			return coded(exitRefused, fmt.Errorf("%s is there already; name another file, or --replace it", out))
		}
		f, err := os.CreateTemp(filepath.Dir(out), ".new-*") // mode 0600
		if err != nil {
			return fileError(fmt.Errorf("backup: %w", err))
		}
		defer func() {
			if err != nil {
				err = errors.Join(err, os.Remove(f.Name()))
			}
		}()
		defer func() { // before the one above
			if err == nil {
				err = f.Sync()
			}
			if err = errors.Join(err, f.Close()); err == nil {
				err = os.Rename(f.Name(), out)
			}
		}()
		to = f
	}
	wait, cancel := context.WithTimeout(ctx, snapshotWait)
	defer cancel()
	buffered := bufio.NewWriterSize(to, 1<<20)
	done, err := bft.Backup(wait, dir, buffered)
	if errors.Is(err, bft.ErrNothing) {
		return coded(exitRefused, err)
	} else if errors.Is(err, context.DeadlineExceeded) {
		return coded(exitUnreachable, err)
	} else if err != nil {
		return err
	}
	if err := buffered.Flush(); err != nil {
		return fmt.Errorf("write the backup: %w", err)
	}
	if out == "-" && a.json {
		return nil // the tar is the result
	}
	return (&app{out: text, err: a.err, json: a.json}).print(done, func(w io.Writer) {
		fmt.Fprintf(w, "backed up %d entries in %d files, %d bytes; it holds private keys\n", done.Entries, done.Files, done.Bytes)
	})
}

func ledgerRestoreCommand(a *app) *cobra.Command {
	var f ledgerFlags
	var alone, halted bool
	cmd := &cobra.Command{
		Use:   "restore FILE DIR (--ledger URL,… | --alone)",
		Short: "make a ledger server's folder of a backup",
		Long: `Make a ledger's folder of a file that zos ledger backup wrote (- reads standard
input). Every byte of its log is proven by its checkpoint. Start it with zos ledger
serve: it goes on from the backup and gets the rest from the other validators.

Name those with --ledger, all that run: what the lost server signed after the backup
is bounded by their newest block, and the restored one signs nothing up to 20 blocks
after the highest that any of them tells, so that it never signs twice. That holds if
the lost server was down for 5 minutes before: a log whose newest signatures are older
than that is refused, since it may be an old copy. One of them has to be a validator's
server; mirrors know no blocks without entries.

--halted takes such a log, for one that really stands still because too few validators
are there. If it is an old copy after all, the restored server may sign twice.

--alone is for a ledger without others: what came after the backup is lost, and readers
who saw it refuse what comes instead. It is also for one that cannot go on without this
vote (two validators, or too many lost), if nobody can start the lost server again.

Exit codes: 0 restored, 1 failed, 2 wrong arguments, 3 the backup is not whole or not
right, or the others' log is old, 4 no such file, 5 the others were not reached.`,
		Example: `  zos ledger restore ledger.tar /var/lib/zos-ledger --ledger https://ledger-2.example --root root.json
  age -d ledger.tar.age | zos ledger restore - /var/lib/zos-ledger --alone`,
		Args: exactly(2, "the backup and the folder to make"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if alone == cmd.Flags().Changed("ledger") {
				return coded(exitUsage, errors.New("want either --ledger with another validator of the same ledger, or --alone if there is none"))
			}
			if alone && halted {
				return coded(exitUsage, errors.New("--halted is about the ledgers that --ledger names; --alone asks none"))
			}
			var height int64
			if !alone {
				var err error
				if height, err = a.othersNewest(cmd.Context(), f, halted); err != nil {
					return err
				}
			}
			return a.ledgerRestore(cmd.Context(), args[0], args[1], height)
		},
	}
	f.add(cmd)
	if err := cmd.Flags().MarkHidden("state"); err != nil {
		panic(err) // the flag was added just above
	}
	cmd.Flags().BoolVar(&alone, "alone", false, "there is no other validator, or none that can go on without this one")
	cmd.Flags().BoolVar(&halted, "halted", false, "the ledger stands still: take a log whose signatures are old; if it is an old copy instead, the restored server may sign twice")
	return cmd
}

func (a *app) ledgerRestore(ctx context.Context, from, dir string, height int64) (err error) {
	in := io.Reader(os.Stdin)
	if from != "-" {
		file, err := os.Open(from)
		if err != nil {
			return fileError(fmt.Errorf("backup: %w", err))
		}
		defer func() { err = errors.Join(err, file.Close()) }()
		in = file
	}
	done, err := bft.Restore(ctx, bufio.NewReaderSize(in, 1<<20), dir, height)
	if errors.Is(err, bft.ErrCutOff) {
		if from == "-" {
			from = "standard input"
		}
		return coded(exitRefused, fmt.Errorf("%s: %w; take another backup with zos ledger backup, nothing was restored", from, err))
	}
	if err != nil {
		return coded(exitRefused, err)
	}
	return a.print(done, func(w io.Writer) {
		fmt.Fprintf(w, "restored %s with %d entries\nnext: zos ledger serve %s\n", dir, done.Entries, dir)
	})
}
