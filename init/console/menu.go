// SPDX-License-Identifier: Apache-2.0

package console

import (
	"strings"
	"time"
)

// Act is what the person in front of the machine asked for.
type Act string

// The acts of the menu. There is no shell, and nothing that changes what the
// node trusts or runs.
const (
	Nothing      Act = ""
	ShowState    Act = "show state"
	ShowRecovery Act = "show recovery"
	Restart      Act = "restart"
	TurnOff      Act = "turn off"
	Reset        Act = "reset"
)

// MenuTime is after how long without a line an open menu closes.
const MenuTime = 2 * time.Minute

const menuText = `
  What to do? Type a number and press Enter.
    1  show the state of this node
    2  show what recovery needs: earlier failures, what this boot is worth
    3  start the machine again, guests end in order
    4  turn the machine off, guests end in order
    5  reset: forget all that this node keeps (asks once more)
    0  close the menu
`

// Menu is the conversation with one console; whoever can type there stands at
// the machine or holds its management controller.
type Menu struct {
	open   bool
	asking bool // for the reset to be confirmed
	at     time.Time
}

// Open says whether a panel must not be drawn over it.
func (m *Menu) Open(now time.Time) bool { return m.open && now.Sub(m.at) < MenuTime }

// Line takes a line that was typed; name is the node's. Noise on a serial line
// that nobody holds must not do anything: only an empty line or "menu" opens.
func (m *Menu) Line(now time.Time, name, line string) (answer string, act Act) {
	line = strings.TrimSpace(line)
	if !m.Open(now) {
		*m = Menu{}
		if line != "" && line != "menu" {
			return "", Nothing
		}
		m.open, m.at = true, now
		return menuText, Nothing
	}
	m.at = now
	if m.asking {
		m.asking = false
		if line == Confirm(name) {
			m.open = false
			return "  The node is reset now.\n", Reset
		}
		return "  Nothing was reset.\n" + menuText, Nothing
	}
	switch line {
	case "1":
		return "", ShowState
	case "2":
		return "", ShowRecovery
	case "3":
		m.open = false
		return "  The machine starts again.\n", Restart
	case "4":
		m.open = false
		return "  The machine turns off.\n", TurnOff
	case "5":
		m.asking = true
		return "  A reset ends all guests and forgets the node's key, its volumes, and all that it\n" +
			"  keeps; it starts again and enrols anew. To go on, type:  " + Confirm(name) + "\n", Nothing
	case "0":
		m.open = false
		return "  The menu is closed. Enter opens it.\n", Nothing
	}
	return menuText, Nothing
}

// Confirm is what has to be typed for a reset.
func Confirm(name string) string {
	if name == "" {
		name = "this node"
	}
	return "reset " + name
}
