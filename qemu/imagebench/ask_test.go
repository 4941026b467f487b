// SPDX-License-Identifier: Apache-2.0

package main

import (
	"io"
	"net"
	"strings"
	"testing"
)

// TestAskSQL plays a PostgreSQL: one that answers, and others that do not count as
// healthy.
func TestAskSQL(t *testing.T) {
	const (
		ready  = "Z\x00\x00\x00\x05I"
		hello  = "R\x00\x00\x00\x08\x00\x00\x00\x00" + ready
		answer = "D\x00\x00\x00\x0c\x00\x01\x00\x00\x00\x0242"
	)
	for name, c := range map[string]struct {
		first, second string
		healthy       bool
	}{
		"answers":      {hello, answer + ready, true},
		"other answer": {hello, strings.Replace(answer, "42", "41", 1) + ready, false},
		"no row":       {hello, ready, false},
		"starting up":  {"E\x00\x00\x00\x0aSFATAL", "", false},
		"huge":         {"R\x7f\x00\x00\x00", "", false},
		"goes away":    {"", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			go func() {
				c1, err := ln.Accept()
				if err != nil {
					return
				}
				defer c1.Close()
				start, query := make([]byte, 41), make([]byte, 16)
				if _, err := io.ReadFull(c1, start); err != nil {
					return
				}
				if _, err := io.WriteString(c1, c.first); err != nil || c.first != hello {
					return
				}
				if _, err := io.ReadFull(c1, query); err != nil || string(query) != "Q\x00\x00\x00\x0fselect 6*7\x00" {
					return
				}
				io.WriteString(c1, c.second) // the other side says what is wrong
			}()
			if err := askSQL(ln.Addr().String()); (err == nil) != c.healthy {
				t.Errorf("got %v, want healthy: %v", err, c.healthy)
			}
		})
	}
}
