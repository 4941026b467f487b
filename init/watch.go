// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"time"

	"github.com/zos-node/zos/init/lastwords"
	"github.com/zos-node/zos/init/shortage"
	"github.com/zos-node/zos/init/watchdog"
)

// watch looks after the node as long as it runs: it feeds the watchdog while
// the agent is well, and notices what is short. An agent that stays silent
// however often it is started ends in a restart of the machine: in order, with
// a reason that is kept, and by the watchdog where even that hangs.
func (n *node) watch() {
	dog := n.arm()
	patience := patience()
	short := shortages{full: map[string]bool{}}
	for range time.Tick(watchdog.Every) {
		if silent := time.Since(n.agent.LastAlive()); !watchdog.Hungry(silent, patience) {
			n.fail(fault("AGENT", "the agent", "a heartbeat every few seconds",
				"Report this with the lines above. The image that ran before may still work.",
				fmt.Errorf("it has said nothing for %s, however often it was started", silent.Round(time.Second))))
		}
		if dog != nil {
			if err := dog.Feed(); err != nil {
				n.log.Error("watchdog", "err", err)
			}
		}
		n.memory(&short)
		n.room(&short)
	}
}

// arm opens the watchdog and asks it why the machine started.
func (n *node) arm() *watchdog.Dog {
	dog, err := watchdog.Open("/dev/watchdog")
	if errors.Is(err, watchdog.ErrNone) {
		n.log.Info(err.Error())
		return nil
	}
	if err != nil {
		n.log.Error("watchdog", "err", err)
	}
	if dog == nil {
		return nil
	}
	n.log.Info("watchdog armed", "timeout", watchdog.Timeout, "patience", watchdog.Patience)
	bit, err := dog.Bit()
	if err != nil {
		n.log.Warn("watchdog", "err", err)
	}
	if bit {
		n.before("watchdog", lastwords.Report{Kind: "watchdog-reset", Detail: "the watchdog reset the machine: init or the kernel hung\n"})
	}
	return dog
}

// memoryHolds is how long the console shows that memory ran out; the ledger's
// incident stays.
const memoryHolds = time.Hour

// shortages are what was seen last.
type shortages struct {
	killed int64
	since  time.Time       // when killed changed last; zero: the console does not show it
	full   map[string]bool // by the folder of a store
}

// memory tells of programs that the kernel ended because there was none left.
func (n *node) memory(s *shortages) {
	killed, err := shortage.Killed(shortage.VMStat)
	if err != nil {
		return // the count cannot vanish while the node runs
	}
	if killed == s.killed {
		if !s.since.IsZero() && time.Since(s.since) > memoryHolds {
			s.since = time.Time{}
			n.board.trouble("memory", "")
		}
		return
	}
	s.killed, s.since = killed, time.Now()
	text, err := shortage.KernelLog()
	who := shortage.Who(text)
	if err != nil {
		who = err.Error()
	}
	what := fmt.Sprintf("memory ran out and the kernel ended a program, %d since the start", killed)
	n.log.Error(what, "which", who, "do", "give the machine more memory, or fewer and smaller guests")
	n.board.trouble("memory", what+": "+who)
	n.leave("memory", lastwords.Report{Kind: "memory-full", Detail: what + "\n" + who})
}

// room tells that files cannot be kept any more, and that they can again.
func (n *node) room(s *shortages) {
	for _, store := range shortage.Stores() {
		r, err := shortage.Look(store.Dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue // a node without a disk
		}
		if err != nil {
			n.log.Error("storage", "err", err)
			continue
		}
		full := r.Full(s.full[store.Dir])
		if full == s.full[store.Dir] {
			continue
		}
		s.full[store.Dir] = full
		if !full {
			n.log.Info("there is room for files again", "in", store.Dir, "freeMiB", r.FreeMiB, "ofMiB", r.TotalMiB)
			n.board.trouble("room "+store.Dir, "")
			continue
		}
		what := fmt.Sprintf("%s is full: %d of %d MiB are free in %s", store.What, r.FreeMiB, r.TotalMiB, store.Dir)
		n.log.Error(what, "do", store.Do)
		n.board.trouble("room "+store.Dir, what)
		n.leave("room-"+strings.ReplaceAll(strings.Trim(store.Dir, "/"), "/", "-"), lastwords.Report{Kind: "storage-full", Detail: what})
	}
}

// agentEnded hears of each end of the agent that nobody asked for; the next
// agent tells the ledger.
func (n *node) agentEnded(why string, last []string) {
	times := n.board.ended(why)
	n.leave("agent", lastwords.Report{Kind: "agent-ended", Detail: fmt.Sprintf("the agent ended, %d times since the start: %s\n%s", times, why, strings.Join(last, "\n"))})
}
