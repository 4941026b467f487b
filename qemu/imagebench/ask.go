// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"
)

const (
	askLimit  = 5 * time.Second // of one question; a new one is asked then
	maxAnswer = 64 << 10        // of one message
)

// askHTTP asks for a page; any answer is one.
func askHTTP(addr string) error {
	client := http.Client{Timeout: askLimit}
	r, err := client.Get("http://" + addr + "/")
	if err != nil {
		return err
	}
	return r.Body.Close()
}

// askSQL asks a PostgreSQL what six times seven is. It speaks version 3 of the
// frontend/backend protocol, as far as a server needs that trusts everybody.
func askSQL(addr string) (err error) {
	c, err := net.DialTimeout("tcp", addr, askLimit)
	if err != nil {
		return err
	}
	defer c.Close() // all was read that is of interest
	if err := c.SetDeadline(time.Now().Add(askLimit)); err != nil {
		return err
	}
	hello := []byte{0, 3, 0, 0}
	hello = append(hello, "user\x00postgres\x00database\x00postgres\x00\x00"...)
	if err := sendSQL(c, 0, hello); err != nil {
		return err
	}
	if _, err := untilReady(c); err != nil {
		return err
	}
	if err := sendSQL(c, 'Q', []byte("select 6*7\x00")); err != nil {
		return err
	}
	row, err := untilReady(c)
	if err != nil {
		return err
	}
	// One column of two bytes.
	if want := []byte("\x00\x01\x00\x00\x00\x0242"); !bytes.Equal(row, want) {
		return fmt.Errorf("it answers %q, want %q", row, want)
	}
	return nil
}

// sendSQL sends a message; the first of a connection has no kind.
func sendSQL(w io.Writer, kind byte, body []byte) error {
	var b []byte
	if kind != 0 {
		b = append(b, kind)
	}
	b = binary.BigEndian.AppendUint32(b, uint32(len(body)+4))
	_, err := w.Write(append(b, body...))
	return err
}

// untilReady reads until the server waits for a question, and gives the last row
// that came.
func untilReady(r io.Reader) (row []byte, err error) {
	for {
		var head [5]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		n := int64(binary.BigEndian.Uint32(head[1:])) - 4
		if n < 0 || n > maxAnswer {
			return nil, fmt.Errorf("a message of %d bytes", n)
		}
		body := make([]byte, n)
		if _, err := io.ReadFull(r, body); err != nil {
			return nil, err
		}
		switch head[0] {
		case 'D':
			row = body
		case 'E':
			return nil, fmt.Errorf("it refuses: %q", body)
		case 'Z':
			return row, nil
		}
	}
}
