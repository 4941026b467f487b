// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cometbft/cometbft/consensus"
	cmttypes "github.com/cometbft/cometbft/types"
)

// walOf writes a log as CometBFT does: marks, and states of rounds.
func walOf(t *testing.T, messages ...consensus.WALMessage) []byte {
	t.Helper()
	var b bytes.Buffer
	for _, m := range messages {
		if err := consensus.NewWALEncoder(&b).Encode(&consensus.TimedWALMessage{Time: time.Unix(1, 0), Msg: m}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func mark(height int64) consensus.WALMessage { return consensus.EndHeightMessage{Height: height} }

func at(height int64) consensus.WALMessage {
	return cmttypes.EventDataRoundState{Height: height, Step: "RoundStepPrevote"}
}

func TestMendWAL(t *testing.T) {
	type messages = []consensus.WALMessage
	for _, c := range []struct {
		name        string
		older, head messages
		torn        string
		height      int64
		want        messages
		same        bool // the file is left alone
	}{
		{name: "nothing is wrong", head: messages{mark(0), at(1), mark(1), at(2)}, height: 1, same: true},
		{name: "nothing is there yet", height: 0, same: true},
		{name: "block without its mark", head: messages{mark(0), at(1)}, height: 1, want: messages{mark(0), at(1), mark(1)}},
		{name: "votes for the next block came after it", head: messages{mark(0), at(1), at(2), at(2)}, height: 1, want: messages{mark(0), at(1), mark(1), at(2), at(2)}},
		{name: "blocks came from peers", head: messages{mark(0), at(7)}, height: 6, want: messages{mark(0), mark(6), at(7)}},
		{name: "torn at the end", head: messages{mark(0), at(1), mark(1), at(2)}, torn: "\x01\x02\x03\x04\x00\x00\x00\x09abc", height: 1, want: messages{mark(0), at(1), mark(1), at(2)}},
		{name: "zeros at the end", head: messages{mark(0), at(1)}, torn: string(make([]byte, 64)), height: 1, want: messages{mark(0), at(1), mark(1)}},
		{name: "all of it torn", torn: "\x01", height: 0, want: messages{}},
		{name: "the mark is in the file before", older: messages{mark(0), at(1), mark(1)}, head: messages{at(2)}, height: 1, same: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "wal")
			before := append(walOf(t, c.head...), c.torn...)
			if err := os.WriteFile(path, before, 0o600); err != nil {
				t.Fatal(err)
			}
			if c.older != nil {
				if err := os.WriteFile(path+".000", walOf(t, c.older...), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			for range 2 { // what is mended needs no mending
				if err := mendWAL(path, c.height); err != nil {
					t.Fatal(err)
				}
			}
			after, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if c.same {
				if !bytes.Equal(after, before) {
					t.Errorf("%d bytes became %d", len(before), len(after))
				}
				return
			}
			got, whole := cutWAL(after)
			want, _ := cutWAL(walOf(t, c.want...))
			if !whole || len(got) != len(want) {
				t.Fatalf("%d records, whole %t, want %d", len(got), whole, len(want))
			}
			for i := range got {
				if got[i].height != want[i].height || got[i].ends != want[i].ends {
					t.Errorf("record %d is of block %d, a mark %t; want %d, %t", i, got[i].height, got[i].ends, want[i].height, want[i].ends)
				}
			}
		})
	}
	if err := mendWAL(filepath.Join(t.TempDir(), "none"), 3); err != nil {
		t.Errorf("no log yet: %v", err)
	}
}

// A database that a cut left half made goes; one that has anything stays.
func TestSweep(t *testing.T) {
	dir := t.TempDir()
	data := filepath.Join(dir, "comet", "data")
	write := func(path, content string) {
		t.Helper()
		path = filepath.Join(data, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(string(LogDir(dir)), 0o755); err != nil {
		t.Fatal(err)
	}
	write("half.db/MANIFEST-000000", "x")
	write("half.db/LOCK", "")
	write("torn.db/CURRENT.0", "MANI")
	write("torn.db/000001.log", "")
	write("whole.db/CURRENT", "MANIFEST-000000\n")
	write("lost.db/000001.log", "entries")
	write("table.db/000002.ldb", "entries")
	write("write-file-atomic-123", "x")
	write("signed.json", "{}")
	write("../../log/.new-1", "x")
	if err := sweep(dir); err != nil {
		t.Fatal(err)
	}
	for path, stays := range map[string]bool{"half.db": false, "torn.db": false, "whole.db": true, "lost.db": true, "table.db": true,
		"write-file-atomic-123": false, "signed.json": true, "../../log/.new-1": false} {
		if _, err := os.Stat(filepath.Join(data, path)); (err == nil) != stays {
			t.Errorf("%s: %v, want it to stay: %t", path, err, stays)
		}
	}
}
