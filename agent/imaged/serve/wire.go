// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

// Numbers of the files that the process inherits.
const (
	FuseFD   = 3  // /dev/fuse, mounted
	ConfigFD = 4  // Config as JSON, to read
	DiskFD   = 5  // the disk with its holes, to write; closed once that is whole
	ReadFD   = 6  // the same, to read
	HaveFD   = 7  // a bit per chunk, see zimage.PartNames
	EventsFD = 8  // Events, to append
	AheadFD  = 9  // a socket, over which the agent sends one descriptor: the shown disk, open to read
	PackFD   = 10 // a pipe with what a mirror sends as start pack, that was asked for ahead (zimage.PackAhead); maybe nothing
	LentFD   = 11 // a socket to the agent, for what Config.Lent says; else not there
)

// MaxRead is the longest read in bytes. The mount must be made with it.
const MaxRead = 256 << 10

// Config is what the process is told.
type Config struct {
	ID         string          `json:"id"`         // image id
	Store      string          `json:"store"`      // where the whole disk will stand; for the agent
	Manifest   zimage.Manifest `json:"manifest"`   // of the image
	Mirrors    []string        `json:"mirrors"`    // base URLs, the preferred one first
	Trace      []int           `json:"trace"`      // chunks that an earlier start read, in that order
	DeadlineMs int64           `json:"deadlineMs"` // how long one read may wait
	Asked      string          `json:"asked"`      // the mirror whose answer comes over PackFD; empty: none was asked
	Lent       []byte          `json:"lent"`       // a bit per chunk that the agent may give from another image; empty: none
}

// What goes over LentFD: the place of a chunk, as 32 bits, little endian; back
// comes Given and the chunk, or Refused. One is asked for after the other, each
// once.
const (
	Refused = 0
	Given   = 1
)

// Kinds of events.
const (
	Ready    = "ready"    // a guest may start: tree, first metadata and the head of the trace are there, or a start pack brings them
	Progress = "progress" // Missing, Bytes and Read say how far it is
	Packed   = "packed"   // a start pack has come, so many Blocks of it; Detail says why not all
	Mirror   = "mirror"   // a mirror's answer was wrong or missing
	Whole    = "whole"    // everything is there; nothing is written any more
	Failed   = "failed"   // a read waited too long, or the disk cannot be written
)

// Event is one line of the event file.
type Event struct {
	Event   string      `json:"event"`
	Missing int         `json:"missing,omitempty"` // chunks
	Bytes   int64       `json:"bytes,omitempty"`   // that mirrors sent
	Read    extent.List `json:"read,omitempty"`    // blocks that were read for the first time since the last event
	Blocks  int64       `json:"blocks,omitempty"`
	Mirror  string      `json:"mirror,omitempty"`
	What    string      `json:"what,omitempty"`
	Lacks   bool        `json:"lacks,omitempty"` // it says that it does not have it; else what it sent is wrong
	Detail  string      `json:"detail,omitempty"`
}
