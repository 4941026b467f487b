// SPDX-License-Identifier: Apache-2.0

// Package trace writes down which chunks of an image a start has read, in the
// order of their first reads, and finds that on the ledger again.
//
// A node that has served an image while it arrived knows what its guest read
// until it was healthy. It says so in the record that the deployment runs,
// "trace/<machine>=<text>" in the detail, beside the image's id among the
// digests. Another node that has to start the same image fetches those chunks
// first, and zos image inspect shows them. A trace is a hint: whatever it says
// costs time at worst, since every chunk is checked against the manifest that
// the signed spec names.
//
// The text is base64 (raw, URL-safe) of the chunks' indexes, each as the
// zigzag varint of its distance from the one before: a start reads much in a
// row, so most are one byte.
package trace

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/zos-node/zos/ledger"
)

// MaxText bounds the text of one machine: a record has 8 KiB for all that it
// says. What a start reads later than this is left out.
const MaxText = 1200

// key is in front of a machine's name in the detail of a record.
const key = "trace/"

// Encode gives the text of a trace, or of as much of its beginning as fits.
func Encode(chunks []int) string {
	var b []byte
	last := 0
	for _, c := range chunks {
		next := binary.AppendVarint(b, int64(c-last))
		if base64.RawURLEncoding.EncodedLen(len(next)) > MaxText {
			break
		}
		b, last = next, c
	}
	return base64.RawURLEncoding.EncodeToString(b)
}

// ErrText means that a text is no trace of such an image.
var ErrText = errors.New("not a trace of this image")

// Decode reads a text back. total is how many chunks the image has; each
// may stand in the trace once.
func Decode(text string, total int) ([]int, error) {
	if len(text) > MaxText {
		return nil, fmt.Errorf("%w: %d bytes", ErrText, len(text))
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	chunks, seen := []int{}, map[int64]bool{}
	for last := int64(0); len(b) > 0; {
		d, n := binary.Varint(b)
		if n <= 0 || d >= int64(total) || d <= -int64(total) {
			return nil, fmt.Errorf("%w: a distance that is none", ErrText)
		}
		b = b[n:]
		last += d
		if last < 0 || last >= int64(total) || seen[last] {
			return nil, fmt.Errorf("%w: chunk %d of %d", ErrText, last, total)
		}
		seen[last] = true
		chunks = append(chunks, int(last))
	}
	return chunks, nil
}

// Detail is what a record says of a machine's start; "" of an empty trace.
func Detail(machine string, chunks []int) string {
	if len(chunks) == 0 {
		return ""
	}
	return key + machine + "=" + Encode(chunks) + "; "
}

// Start is a start of an image that a node has recorded.
type Start struct {
	Deployment string `json:"deployment"` // its name
	Claim      int64  `json:"claim"`
	Machine    string `json:"machine"`
	Chunks     []int  `json:"chunks"` // by their place in the manifest, in the order of the first reads
}

// Last finds the newest start of an image of so many chunks; nil when no node
// has recorded one.
func Last(s *ledger.State, image string, total int) *Start {
	deployments := s.Deployments()
	var found *Start
	for i := len(deployments) - 1; i >= 0; i-- {
		for _, g := range s.Claims(deployments[i].ID) {
			if found != nil && g.Index < found.Claim {
				continue
			}
			for _, r := range s.Records(g.Index) {
				if machine, chunks := in(*r.Record, image, total); chunks != nil {
					found = &Start{deployments[i].Name, g.Index, machine, chunks}
				}
			}
		}
	}
	return found
}

// in looks into one record.
func in(r ledger.Record, image string, total int) (machine string, chunks []int) {
	for word := range strings.SplitSeq(r.Detail, "; ") {
		name, text, ok := strings.Cut(strings.TrimPrefix(word, key), "=")
		if !ok || !strings.HasPrefix(word, key) || r.Digests["image/"+name] != image {
			continue
		}
		if c, err := Decode(text, total); err == nil && len(c) > 0 { // what a node wrote that is none is no hint
			return name, c
		}
	}
	return "", nil
}
