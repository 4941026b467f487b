// SPDX-License-Identifier: Apache-2.0

package main

import (
	"strings"
	"testing"
	"time"
)

// TestAgentThatSaysNothing: what the console says of an agent, from what is known
// of it.
func TestAgentThatSaysNothing(t *testing.T) {
	const long = 2 * speak
	status := []byte(`{"name":"n"}`)
	for _, tt := range []struct {
		name string
		do   func(b *board)
		want string
	}{
		{"first start", func(b *board) { b.began() }, "starts"},
		{"it has spoken", func(b *board) { b.began(); b.told(status) }, ""},
		{"it has spoken, and does no more", func(b *board) { b.began(); b.told(status); b.heard = b.heard.Add(-long) }, "runs, but says nothing"},
		{"it ended", func(b *board) { b.began(); b.told(status); b.ended("exit code 2") }, "ended 1 times, last: exit code 2"},
		{"it ended, and waits for its next start", func(b *board) { b.began(); b.ended("exit code 2"); b.heard = b.heard.Add(-long) }, "ended 1 times"},
		{"it was started again", func(b *board) { b.began(); b.ended("exit code 2"); b.began() }, "ended 1 times"},
		{"it was started again, and hangs", func(b *board) { b.began(); b.ended("exit code 2"); b.began(); b.heard = b.heard.Add(-long) }, "runs, but says nothing"},
		{"it was started again, and speaks", func(b *board) { b.began(); b.ended("exit code 2"); b.began(); b.told(status) }, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &board{heard: time.Now()}
			tt.do(b)
			if o, _, _ := b.show("image"); !strings.HasPrefix(o.Agent, tt.want) || tt.want == "" && o.Agent != "" {
				t.Errorf("it says %q, want %q", o.Agent, tt.want)
			}
		})
	}
}
