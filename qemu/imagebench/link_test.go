// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"
)

// TestLink: what goes through comes out whole, and never sooner than the line
// allows.
func TestLink(t *testing.T) {
	const size = 2 << 20
	sent := bytes.Repeat([]byte("zero"), size/4)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return // the test has ended
		}
		defer c.Close()
		if _, err := io.ReadFull(c, make([]byte, 1)); err == nil {
			c.Write(sent) // the other side notices what is missing
		}
	}()
	l, err := newLink(ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer l.close()
	start := time.Now()
	c, err := net.Dial("tcp", l.addr())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	took := time.Since(start)
	if err != nil || !bytes.Equal(got, sent) || l.bytes.Load() != size {
		t.Fatalf("%d bytes, %d counted, %v", len(got), l.bytes.Load(), err)
	}
	line := time.Duration(size / linkRate * float64(time.Second))
	if least := line + 2*linkRTT; took < least {
		t.Errorf("took %s, the line needs %s", took, least)
	}
}
