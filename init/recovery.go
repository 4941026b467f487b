// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/zos-node/zos/init/disks"
	"github.com/zos-node/zos/init/lastwords"
	"github.com/zos-node/zos/init/trust"
	"github.com/zos-node/zos/kernel/partition"
)

// recovery is what a person needs who has to decide what to do with a node
// that does not do its work.
func (n *node) recovery(image string) string {
	s := trust.Look(trust.EFIVars, trust.TPM)
	store := "none: what a crash says is lost"
	// "(null)" or nothing is the kernel's word for no backend.
	if b, err := os.ReadFile("/sys/module/pstore/parameters/backend"); err == nil && !strings.HasPrefix(string(b), "(null)") && strings.TrimSpace(string(b)) != "" {
		store = "the kernel's log goes to " + strings.TrimSpace(string(b))
	}
	waiting, err := filepath.Glob(filepath.Join(lastwords.Dir, "*.json"))
	if err != nil {
		waiting = nil
	}
	n.board.mu.Lock()
	ends, earlier, lacks := n.board.ends, n.board.earlier, n.board.lacks
	n.board.mu.Unlock()
	or := func(s, none string) string {
		if s == "" {
			return none
		}
		return s
	}
	var b strings.Builder
	line := func(what, text string) { fmt.Fprintf(&b, "    %-14s %s\n", what, text) }
	b.WriteString("\n  What recovery needs\n")
	line("image", image)
	line("Secure Boot", s.SecureBoot)
	line("TPM", map[bool]string{true: "yes", false: "no"}[s.TPM])
	line("register 11", or(s.PCR11, "nothing that vouches for this boot "+s.Problem))
	line("crash store", store)
	line("agent", fmt.Sprintf("ended %d times since the start", ends))
	line("reports", fmt.Sprintf("%d wait for the ledger", len(waiting)))
	line("keeps", keeps())
	if len(earlier) == 0 {
		line("before", "no boot is known to have ended badly")
	}
	for _, e := range earlier {
		line("before", e)
	}
	for _, l := range lacks {
		line("no promise", l)
	}
	return b.String()
}

// kept is what outlives a restart of the machine, and how a reset forgets it.
// Guests, images and volumes live in memory: a restart alone forgets them.
var kept = []struct {
	what   string
	forget func() error
}{
	{"the node's state on its disk", func() error {
		_, err := disks.Wipe(partition.Sys, partition.Dev, disks.StateName)
		return err
	}},
	{"the last words of earlier boots", func() error {
		files, err := filepath.Glob(filepath.Join(lastwords.Pstore, "*"))
		for _, f := range files {
			err = errors.Join(err, os.Remove(f))
		}
		return err
	}},
}

func keeps() string {
	var all []string
	for _, k := range kept {
		all = append(all, k.what)
	}
	return strings.Join(all, ", ") + "; all else is in memory"
}

// reset forgets it all. It runs when guests have ended and disks are unmounted.
func (n *node) reset() {
	for _, k := range kept {
		if err := k.forget(); err != nil {
			n.log.Error("reset", "what", k.what, "err", err)
			continue
		}
		n.log.Warn("reset", "forgot", k.what)
	}
}
