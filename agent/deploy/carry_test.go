// SPDX-License-Identifier: Apache-2.0

package deploy

import (
	"testing"

	"github.com/zos-node/zos/agent/guestlink"
	"github.com/zos-node/zos/agent/vm"
	"github.com/zos-node/zos/guest/wire"
)

// TestGuestsWordComesFirst: a guest says why it ends, then its VM goes off. On
// a busy node both wait when the agent looks; what is recorded is the reason.
func TestGuestsWordComesFirst(t *testing.T) {
	for range 200 { // a choice between two that are ready is made by chance
		l := &Life{msgs: make(chan msg, 4)}
		events, guest, quit := make(chan vm.Event, 1), make(chan guestlink.Event, 2), make(chan struct{})
		guest <- guestlink.Event{Report: &wire.Report{}}
		guest <- guestlink.Event{Fatal: &wire.Fatal{Phase: "root", Error: "no such device"}}
		events <- vm.Event{Kind: vm.EventExit}
		go l.carry(&machine{}, 1, quit, events, guest)
		var got []string
		for range 3 {
			switch x := <-l.msgs; {
			case x.vm != nil:
				got = append(got, "off")
			case x.guest.Report != nil:
				got = append(got, "report")
			case x.guest.Fatal != nil:
				got = append(got, "fatal")
			}
		}
		close(quit)
		if got[0] != "report" || got[1] != "fatal" || got[2] != "off" {
			t.Fatalf("order %v", got)
		}
	}
}
