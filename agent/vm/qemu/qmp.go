// SPDX-License-Identifier: Apache-2.0

package qemu

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
)

// qmp is a client of QEMU's monitor protocol: JSON objects both ways; the
// server greets, answers come in order, events in between.
type qmp struct {
	conn net.Conn
	in   *json.Decoder
}

type qmpError struct{ Class, Desc string }

func (e *qmpError) Error() string { return e.Desc + " (" + e.Class + ")" }

// maxAnswers bounds what is read on one connection.
const maxAnswers = 8 << 20

// ask opens the monitor for some questions. QEMU serves one connection at a
// time on it, so it is never held for longer.
func (m *Machine) ask(ctx context.Context, questions func(*qmp) error) (err error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", m.socket)
	if err != nil {
		return fmt.Errorf("qmp: %w", err)
	}
	// Closing ends a question whose answer never comes.
	closed := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() { closed <- conn.Close() })
	defer func() {
		var e error
		if stop() {
			e = conn.Close()
		} else {
			e = <-closed
		}
		if e != nil {
			err = errors.Join(err, fmt.Errorf("qmp: %w", e))
		}
	}()
	q := &qmp{conn: conn, in: json.NewDecoder(io.LimitReader(conn, maxAnswers))}
	var greeting struct{ QMP json.RawMessage }
	if err := q.in.Decode(&greeting); err != nil {
		return fmt.Errorf("qmp greeting: %w", errors.Join(err, ctx.Err()))
	}
	if greeting.QMP == nil {
		return errors.New("qmp: something else answers")
	}
	if err := q.call("qmp_capabilities", nil, nil); err != nil {
		return err
	}
	if err := questions(q); err != nil {
		return errors.Join(err, ctx.Err())
	}
	return nil
}

func (q *qmp) call(command string, arguments, out any) error {
	b, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
	}{command, arguments})
	if err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	if _, err := q.conn.Write(append(b, '\n')); err != nil {
		return fmt.Errorf("qmp %s: %w", command, err)
	}
	for {
		var answer struct {
			Return json.RawMessage
			Error  *qmpError
			Event  string
		}
		if err := q.in.Decode(&answer); err != nil {
			return fmt.Errorf("qmp %s: %w", command, err)
		}
		switch {
		case answer.Event != "": // the event file has it too
		case answer.Error != nil:
			return fmt.Errorf("qmp %s: %w", command, answer.Error)
		case out != nil:
			if err := json.Unmarshal(answer.Return, out); err != nil {
				return fmt.Errorf("qmp %s: %w", command, err)
			}
			return nil
		default:
			return nil
		}
	}
}

// get reads a property of QEMU's object tree.
func (q *qmp) get(path, property string, out any) error {
	return q.call("qom-get", map[string]string{"path": path, "property": property}, out)
}
