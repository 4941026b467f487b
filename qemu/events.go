// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
)

// events is the socket of a monitor that nobody commands.
func (m *Machine) events() string { return filepath.Join(m.dir, "events") }

// tellEvents writes what QEMU says of the machine (a reset by the watchdog, a
// shutdown and who asked for it, a panic) between the lines of its console:
// a machine that is gone without a word would leave its reader guessing. It
// returns when the machine has ended.
func (m *Machine) tellEvents(w io.Writer) {
	conn, err := m.dial(context.Background(), m.events())
	if err != nil {
		return // it ended at once, and Wait says why
	}
	defer conn.Close()
	in := bufio.NewScanner(conn)
	if !in.Scan() || qmpCall(conn, in, "qmp_capabilities", struct{}{}) != nil {
		return
	}
	for in.Scan() {
		if line := eventLine(in.Bytes()); line != "" {
			fmt.Fprintf(w, "\n%s\n", line)
		}
	}
}

// eventLine is the console line for a QMP event, "" for what says nothing of
// the whole machine.
func eventLine(b []byte) string {
	var e struct {
		Event string
		Data  struct{ Reason, Action string }
	}
	if err := json.Unmarshal(b, &e); err != nil {
		return fmt.Sprintf("rig: QEMU says what is no JSON: %q", b)
	}
	switch e.Event {
	case "SHUTDOWN", "RESET":
		return fmt.Sprintf("rig: QEMU says %s, reason %s", e.Event, e.Data.Reason)
	case "WATCHDOG", "GUEST_PANICKED":
		return fmt.Sprintf("rig: QEMU says %s, action %s", e.Event, e.Data.Action)
	case "STOP":
		return "rig: QEMU says STOP"
	}
	return ""
}
