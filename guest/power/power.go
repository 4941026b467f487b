// SPDX-License-Identifier: Apache-2.0

// Package power hears the power button. The kernel tells ACPI events by
// generic netlink, in the family "acpi_event"; its "button" driver has to be
// loaded for there to be any.
package power

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/guest/netlink"
)

const (
	family = "acpi_event"
	group  = "acpi_mc_group"

	genericHeader = 4 // command, version, reserved
	eventAttr     = 1 // ACPI_GENL_ATTR_EVENT
	classSize     = 20
)

// ErrNoACPI is a kernel or machine without the family.
var ErrNoACPI = errors.New("no ACPI events")

// Open subscribes.
func Open() (*netlink.Conn, error) {
	c, err := netlink.Open(unix.NETLINK_GENERIC)
	if err != nil {
		return nil, err
	}
	if err := subscribe(c); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func subscribe(c *netlink.Conn) error {
	body := netlink.Attr([]byte{unix.CTRL_CMD_GETFAMILY, 1, 0, 0}, unix.CTRL_ATTR_FAMILY_NAME, []byte(family+"\x00"))
	answers, err := c.Do(unix.GENL_ID_CTRL, 0, body)
	if errors.Is(err, unix.ENOENT) {
		return ErrNoACPI
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrNoACPI, err)
	}
	for _, a := range answers {
		id, err := groupID(a.Body)
		if err != nil {
			return err
		}
		return c.Join(id)
	}
	return ErrNoACPI
}

// groupID finds the multicast group in the description of the family.
func groupID(body []byte) (uint32, error) {
	if len(body) < genericHeader {
		return 0, errors.New("generic netlink: answer is cut")
	}
	attrs, err := netlink.Attrs(body[genericHeader:])
	if err != nil {
		return 0, err
	}
	for _, a := range attrs {
		if a.Type != unix.CTRL_ATTR_MCAST_GROUPS {
			continue
		}
		groups, err := netlink.Attrs(a.Data)
		if err != nil {
			return 0, err
		}
		for _, g := range groups {
			if id, ok, err := named(g.Data); err != nil || ok {
				return id, err
			}
		}
	}
	return 0, fmt.Errorf("%w: no group %s", ErrNoACPI, group)
}

func named(b []byte) (id uint32, ok bool, err error) {
	attrs, err := netlink.Attrs(b)
	if err != nil {
		return 0, false, err
	}
	var has bool
	for _, a := range attrs {
		switch a.Type {
		case unix.CTRL_ATTR_MCAST_GRP_NAME:
			ok = string(a.Data) == group+"\x00"
		case unix.CTRL_ATTR_MCAST_GRP_ID:
			if has = len(a.Data) == 4; has {
				id = binary.NativeEndian.Uint32(a.Data)
			}
		}
	}
	return id, ok && has, nil
}

// Pressed waits for the button.
func Pressed(c *netlink.Conn) error {
	for {
		messages, err := c.Receive()
		if errors.Is(err, unix.ENOBUFS) {
			continue // events were lost; a button can be pressed again
		}
		if err != nil {
			return err
		}
		for _, m := range messages {
			if isButton(m.Body) {
				return nil
			}
		}
	}
}

// isButton looks at a struct acpi_genl_event: class and bus id, 20 and 15
// bytes, then type and data.
func isButton(body []byte) bool {
	if len(body) < genericHeader {
		return false
	}
	attrs, err := netlink.Attrs(body[genericHeader:])
	if err != nil {
		return false
	}
	for _, a := range attrs {
		if a.Type != eventAttr || len(a.Data) < classSize {
			continue
		}
		class, _, _ := bytes.Cut(a.Data[:classSize], []byte{0})
		if string(class) == "button/power" {
			return true
		}
	}
	return false
}
