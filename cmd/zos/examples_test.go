// SPDX-License-Identifier: Apache-2.0

package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// shellWords splits an example into its simple commands, as a shell does with
// the little that examples use: quotes, lines that go on, |, && and >.
func shellWords(text string) (all [][]string) {
	var words []string
	var word strings.Builder
	inWord, quote := false, rune(0)
	endWord := func() {
		if inWord {
			words = append(words, word.String())
		}
		word.Reset()
		inWord = false
	}
	endCommand := func() {
		endWord()
		if len(words) > 0 {
			all = append(all, words)
		}
		words = nil
	}
	for _, r := range strings.ReplaceAll(text, "\\\n", " ") {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, inWord = r, true
		case r == '\n' || r == '|' || r == '&' || r == '>' || r == ';':
			endCommand() // what stands behind > is a command of its own here, and not zos
		case r == ' ' || r == '\t':
			endWord()
		default:
			inWord = true
			word.WriteRune(r)
		}
	}
	endCommand()
	return all
}

func TestShellWords(t *testing.T) {
	got := shellWords("  A=1 zos stop x \\\n  --reason \"end of | sale\"\n  zos a -o - | jq '.b | c' >out && zos d")
	want := [][]string{{"A=1", "zos", "stop", "x", "--reason", "end of | sale"}, {"zos", "a", "-o", "-"}, {"jq", ".b | c"}, {"out"}, {"zos", "d"}}
	if !slices.EqualFunc(got, want, slices.Equal) {
		t.Errorf("%q", got)
	}
}

// missingIn parses a command line and asks the command itself whether something
// is missing, without running it.
func missingIn(args []string) (*cobra.Command, error) {
	a := &app{}
	root := &cobra.Command{Use: "zos"}
	root.PersistentFlags().BoolVar(&a.json, "json", false, "")
	root.AddCommand(a.commands()...)
	groups(root)
	c, rest, err := root.Find(args)
	if err != nil {
		return nil, err
	}
	if err := c.ParseFlags(rest); err != nil {
		return c, err
	}
	given := c.Flags().Args()
	if err := c.ValidateArgs(given); err != nil {
		return c, err
	}
	return c, c.PreRunE(c, given)
}

// rootNeeded says whether a command whose flags were parsed refuses to work
// without --root. All that read a ledger verify it; these are the exceptions.
func rootNeeded(c *cobra.Command) bool {
	set := c.Flags().Changed
	switch c.CommandPath() {
	case "zos submit": // the ledger checks, and the receipt is said to be unverified
		return false
	case "zos release", "zos ledger revoke": // end in zos submit
		return false
	case "zos image publish":
		from, err := c.Flags().GetString("start")
		return err == nil && from == fromLedger
	case "zos image inspect":
		return set("ledger")
	case "zos ledger restore":
		return !set("alone")
	case "zos node build":
		return true
	}
	return c.Flags().Lookup("ledger") != nil && c.Flags().Lookup("root") != nil
}

// TestExamples: what the help shows works as it is typed, as far as the
// command line goes: no variable of the environment stands in for a flag.
func TestExamples(t *testing.T) {
	for _, name := range []string{"ZOS_LEDGER", "ZOS_ROOT", "ZOS_STORE"} {
		t.Setenv(name, "")
	}
	var all []*cobra.Command
	for _, top := range (&app{}).commands() {
		all = append(all, every(top)...)
	}
	for _, of := range all {
		own := false
		for _, words := range shellWords(of.Example) {
			for len(words) > 0 && strings.Contains(words[0], "=") {
				words = words[1:]
			}
			if len(words) == 0 || words[0] != "zos" {
				continue
			}
			line := strings.Join(words, " ")
			c, err := missingIn(words[1:])
			if err != nil {
				t.Errorf("%s: %v", line, err)
				continue
			}
			own = own || c.CommandPath() == "zos "+of.CommandPath()
			if rootNeeded(c) && !c.Flags().Changed("root") {
				t.Errorf("%s: --root is needed", line)
			}
			if name := c.CommandPath(); (name == "zos node capacity" || name == "zos node incidents") && !c.Flags().Changed("ledger") {
				t.Errorf("%s: --ledger is needed", line)
			}
		}
		if !own {
			t.Errorf("zos %s: no example of its own was recognised in %q", of.CommandPath(), of.Example)
		}
	}
}
