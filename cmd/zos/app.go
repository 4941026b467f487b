// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
)

// Exit codes. They are a contract: scripts rely on them.
const (
	exitOK          = 0
	exitFailed      = 1   // the operation did not succeed
	exitUsage       = 2   // wrong arguments
	exitRefused     = 3   // a check said no: invalid spec, bad signature, refused entry, discrepancy
	exitNotFound    = 4   // what was named does not exist
	exitUnreachable = 5   // a server could not be reached, or did not answer in time
	exitInterrupted = 130 // Ctrl-C
)

// codedError carries the exit code that an error stands for.
type codedError struct {
	code int
	err  error
}

func (e *codedError) Error() string { return e.err.Error() }
func (e *codedError) Unwrap() error { return e.err }

// coded gives err an exit code; nil stays nil.
func coded(code int, err error) error {
	if err == nil {
		return nil
	}
	return &codedError{code, err}
}

// app is what every command needs: where to write and how.
type app struct {
	out, err io.Writer
	json     bool
	bar      bool // a bar of progress stands on the terminal
}

// print writes v as one line of JSON with --json, else calls text.
func (a *app) print(v any, text func(w io.Writer)) error {
	a.clearBar()
	if !a.json {
		text(a.out)
		return nil
	}
	enc := json.NewEncoder(a.out)
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

// keeper remembers the first error of a writer: a result that nobody got is no
// success, even where a writer of tables does not look.
type keeper struct {
	w   io.Writer
	err error
}

func (k *keeper) Write(b []byte) (int, error) {
	n, err := k.w.Write(b)
	if err != nil && k.err == nil {
		k.err = err
	}
	return n, err
}

// commands lists the command groups, one file each.
func (a *app) commands() []*cobra.Command {
	var all []*cobra.Command
	for _, group := range []func(*app) []*cobra.Command{specCommands, signCommands, imageCommands, nodeCommands, ledgerCommands, softwareCommands} {
		all = append(all, group(a)...)
	}
	return all
}

// groups makes every command that only holds others refuse a name that it
// does not know; cobra would show the help and call that a success.
func groups(c *cobra.Command) {
	for _, sub := range c.Commands() {
		groups(sub)
	}
	if !c.HasSubCommands() || c.Runnable() {
		usage(c)
		return
	}
	c.Args = cobra.ArbitraryArgs
	c.RunE = func(c *cobra.Command, args []string) error {
		if len(args) > 0 {
			return coded(exitUsage, fmt.Errorf("there is no command %q; %s --help lists those that there are", c.CommandPath()+" "+args[0], c.CommandPath()))
		}
		return c.Help()
	}
}

// usage makes wrong arguments and missing flags exit with exitUsage, which
// cobra knows nothing of.
func usage(c *cobra.Command) {
	if args := c.Args; args != nil {
		c.Args = func(c *cobra.Command, given []string) error {
			if err := args(c, given); err != nil {
				return coded(exitUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
			}
			return nil
		}
	}
	before := c.PreRunE
	c.PreRunE = func(c *cobra.Command, given []string) error {
		if err := c.ValidateRequiredFlags(); err != nil {
			return coded(exitUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
		}
		if before == nil {
			return nil
		}
		return before(c, given)
	}
}

// stopped names a signal in place of Go's words for it. What stands around them
// stays: it says what was under way, and in which state it is left.
func stopped(err error) error {
	if !errors.Is(err, context.Canceled) {
		return err
	}
	const words = "stopped by a signal, before the end"
	text := strings.ReplaceAll(err.Error(), context.Canceled.Error(), words)
	if !strings.Contains(text, words) {
		text = words + ": " + text
	}
	// Several that worked side by side all say the same.
	return errors.New(strings.Join(slices.Compact(strings.Split(text, "\n")), "\n"))
}

// run is main without the process: it returns the exit code.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) int {
	kept := &keeper{w: stdout}
	a := &app{out: kept, err: stderr}
	root := &cobra.Command{
		Use:           "zos",
		Short:         "sign, submit, follow and audit deployments; build and boot nodes",
		SilenceUsage:  true,
		SilenceErrors: true,
	}
	root.SetOut(kept)
	root.SetErr(stderr)
	root.SetArgs(args)
	root.PersistentFlags().BoolVar(&a.json, "json", false, "write the result as JSON")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		// What stands behind the flag that is wrong was not looked at.
		a.json = a.json || slices.Contains(args, "--json")
		return coded(exitUsage, fmt.Errorf("%w; see %s --help", err, c.CommandPath()))
	})
	root.AddCommand(a.commands()...)
	groups(root)
	err := root.ExecuteContext(ctx)
	a.clearBar()
	if err == nil && kept.err != nil {
		err = fmt.Errorf("write the result: %w", kept.err)
	}
	if err == nil {
		return exitOK
	}
	code := exitFailed
	var c *codedError
	switch {
	case ctx.Err() != nil:
		code = exitInterrupted
		err = stopped(err)
	case errors.As(err, &c):
		code = c.code
	}
	if a.json {
		_ = json.NewEncoder(stderr).Encode(map[string]any{"error": err.Error(), "exit": code})
	} else {
		fmt.Fprintf(stderr, "zos: %s\n", harmlessLines(err.Error()))
	}
	return code
}
