// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"time"
)

// callLimit bounds one exchange over a socket of the machine.
const callLimit = 2 * time.Minute

// Monitor runs one QMP command without arguments.
func (m *Machine) Monitor(ctx context.Context, command string) error {
	return m.order(ctx, command, struct{}{})
}

func (m *Machine) order(ctx context.Context, command string, arguments any) error {
	conn, err := m.dial(ctx, m.qmp)
	if err != nil {
		return fmt.Errorf("QMP: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return fmt.Errorf("QMP: %w", err)
	}
	in := bufio.NewScanner(conn)
	if !in.Scan() { // greeting
		return fmt.Errorf("QMP greeting: %w", scanErr(in))
	}
	if err := qmpCall(conn, in, "qmp_capabilities", struct{}{}); err != nil {
		return fmt.Errorf("QMP: %w", err)
	}
	if err := qmpCall(conn, in, command, arguments); err != nil {
		return fmt.Errorf("QMP %s: %w", command, err)
	}
	return nil
}

func qmpCall(conn net.Conn, in *bufio.Scanner, command string, arguments any) error {
	b, err := json.Marshal(map[string]any{"execute": command, "arguments": arguments})
	if err != nil {
		return err
	}
	if _, err := conn.Write(append(b, '\n')); err != nil {
		return err
	}
	for in.Scan() {
		var reply struct {
			Return json.RawMessage
			Error  *struct{ Desc string }
		}
		if err := json.Unmarshal(in.Bytes(), &reply); err != nil {
			return fmt.Errorf("decode reply: %w", err)
		}
		switch {
		case reply.Error != nil:
			return errors.New(reply.Error.Desc)
		case reply.Return != nil:
			return nil
		}
		// An event: the reply follows.
	}
	return scanErr(in)
}

// Press presses and lets go keys of the keyboard, one after the other. A name is
// one of QEMU's key codes: "ret", "a", "spc", "minus".
func (m *Machine) Press(ctx context.Context, names ...string) error {
	for _, name := range names {
		key := map[string]any{"keys": []any{map[string]string{"type": "qcode", "data": name}}}
		if err := m.order(ctx, "send-key", key); err != nil {
			return fmt.Errorf("press %s: %w", name, err)
		}
	}
	return nil
}

// Cable plugs the cable of a network card in, or pulls it; id is the card's.
func (m *Machine) Cable(ctx context.Context, id string, in bool) error {
	return m.order(ctx, "set_link", map[string]any{"name": id, "up": in})
}

// Plug adds a device to the running machine; properties are those of QEMU's
// -device, with "driver" among them.
func (m *Machine) Plug(ctx context.Context, properties map[string]any) error {
	return m.order(ctx, "device_add", properties)
}

// Unplug takes a device out of the running machine, for good: a disk's drive goes
// with it.
func (m *Machine) Unplug(ctx context.Context, id string) error {
	return m.order(ctx, "device_del", map[string]string{"id": id})
}

// Screenshot writes what the screen shows as a picture (PPM).
func (m *Machine) Screenshot(ctx context.Context, file string) error {
	return m.order(ctx, "screendump", map[string]string{"filename": file})
}

func scanErr(in *bufio.Scanner) error {
	if err := in.Err(); err != nil {
		return err
	}
	return ErrConsoleEnded
}

// Fault sends one command to the fault program of a test image and decodes
// its answer into reply (which may be nil). The protocol is one line of JSON
// each way: {"do":…, …} and {"error":…} or the result.
func (m *Machine) Fault(ctx context.Context, command map[string]any, reply any) error {
	if m.port == "" {
		return errors.New("the machine was started without a fault channel")
	}
	conn, err := m.dial(ctx, m.port)
	if err != nil {
		return fmt.Errorf("fault channel: %w", err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(callLimit)); err != nil {
		return fmt.Errorf("fault channel: %w", err)
	}
	line, err := json.Marshal(command)
	if err != nil {
		return fmt.Errorf("fault command: %w", err)
	}
	if _, err := conn.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("fault channel: %w", err)
	}
	in := bufio.NewScanner(conn)
	in.Buffer(nil, 1<<20)
	if !in.Scan() {
		return fmt.Errorf("fault %v: no answer: %w", command["do"], scanErr(in))
	}
	var said struct{ Error string }
	if err := json.Unmarshal(in.Bytes(), &said); err != nil {
		return fmt.Errorf("fault %v: decode %q: %w", command["do"], in.Text(), err)
	}
	if said.Error != "" {
		return fmt.Errorf("fault %v: %s", command["do"], said.Error)
	}
	if reply == nil {
		return nil
	}
	if err := json.Unmarshal(in.Bytes(), reply); err != nil {
		return fmt.Errorf("fault %v: decode %q: %w", command["do"], in.Text(), err)
	}
	return nil
}
