// SPDX-License-Identifier: Apache-2.0

// Package trace writes down which blocks of an image a start has read, in the
// order of their first reads, and finds that on the ledger again.
//
// A node that has served an image while it arrived knows what its guest read
// until it was healthy. It says so in the record that the deployment runs,
// "trace/<machine>=<text>" in the detail, beside the image's id among the
// digests. Another node that has to start the same image fetches the chunks of
// those blocks first; zos image publish makes a start pack of it; and zos image
// inspect shows it. A trace is a hint: whatever it says costs time at worst, since
// all that comes is checked against the manifest that the signed spec names.
//
// The text is "b." and base64 (raw, URL-safe) of an extent.List of blocks of 4 KiB.
// Older nodes wrote chunks: base64 without a prefix of their indexes, each as the
// zigzag varint of its distance from the one before. That is still read, as all
// blocks of those chunks.
package trace

import (
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/zimage"
	"github.com/zos-node/zos/zimage/extent"
)

const (
	// MaxText bounds the text of one machine in a record, which has 8 KiB for all
	// that it says. What a start reads later than this is left out.
	MaxText = 6 << 10
	// MaxFile bounds a text in a file.
	MaxFile = 1 << 20
	// key is in front of a machine's name in the detail of a record.
	key = "trace/"
	// blocks is in front of a text of blocks; it is no letter of base64.
	blocks = "b."
)

// Encode gives the text of a trace, or of as much of its beginning as fits into
// so many bytes.
func Encode(l extent.List, limit int) string {
	b := l.Encode(base64.RawURLEncoding.DecodedLen(max(limit-len(blocks), 0)))
	return blocks + base64.RawURLEncoding.EncodeToString(b)
}

// ErrText means that a text is no trace of such an image.
var ErrText = errors.New("not a trace of this image")

// Decode reads a text back, of at most MaxFile bytes.
func Decode(text string, m zimage.Manifest) (extent.List, error) {
	if len(text) > MaxFile {
		return nil, fmt.Errorf("%w: %d bytes", ErrText, len(text))
	}
	body, isBlocks := strings.CutPrefix(text, blocks)
	b, err := base64.RawURLEncoding.Strict().DecodeString(body)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	if !isBlocks {
		return ofChunks(b, m)
	}
	l, err := extent.Decode(b, m.DiskSize/extent.BlockSize)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrText, err)
	}
	return l, nil
}

// ofChunks reads what older nodes wrote; each chunk may stand in it once.
func ofChunks(b []byte, m zimage.Manifest) (extent.List, error) {
	l, seen, total := extent.List{}, map[int64]bool{}, int64(len(m.Chunks))
	for last := int64(0); len(b) > 0; {
		d, n := binary.Varint(b)
		if n <= 0 || d >= total || d <= -total {
			return nil, fmt.Errorf("%w: a distance that is none", ErrText)
		}
		b = b[n:]
		last += d
		if last < 0 || last >= total || seen[last] {
			return nil, fmt.Errorf("%w: chunk %d of %d", ErrText, last, total)
		}
		seen[last] = true
		c := m.Chunks[last]
		l = append(l, extent.Extent{First: c.Off / extent.BlockSize, Blocks: c.Size / extent.BlockSize})
	}
	return l, nil
}

// Detail is what a record says of a machine's start, in at most so many bytes; ""
// of an empty trace, and where nothing of it fits.
func Detail(machine string, l extent.List, room int) string {
	const end = "; "
	head := key + machine + "="
	text := Encode(l, min(room-len(head)-len(end), MaxText))
	if text == blocks {
		return ""
	}
	return head + text + end
}

// Start is a start of an image that a node has recorded.
type Start struct {
	Deployment string      `json:"deployment"` // its name
	Claim      int64       `json:"claim"`
	Machine    string      `json:"machine"`
	Text       string      `json:"text"` // as it was recorded
	Blocks     extent.List `json:"blocks"`
}

// Exact says whether it was recorded block by block, and not by chunks.
func (s Start) Exact() bool { return strings.HasPrefix(s.Text, blocks) }

// Last finds the newest start of an image; nil when no node has recorded one.
func Last(s *ledger.State, image string, m zimage.Manifest) *Start {
	deployments := s.Deployments()
	var found *Start
	for i := len(deployments) - 1; i >= 0; i-- {
		for _, g := range s.Claims(deployments[i].ID) {
			if found != nil && g.Index < found.Claim {
				continue
			}
			for _, r := range s.Records(g.Index) {
				if start := in(*r.Record, image, m); start != nil {
					start.Deployment, start.Claim = deployments[i].Name, g.Index
					found = start
				}
			}
		}
	}
	return found
}

// in looks into one record.
func in(r ledger.Record, image string, m zimage.Manifest) *Start {
	for word := range strings.SplitSeq(r.Detail, "; ") {
		name, text, ok := strings.Cut(strings.TrimPrefix(word, key), "=")
		if !ok || !strings.HasPrefix(word, key) || r.Digests["image/"+name] != image {
			continue
		}
		if l, err := Decode(text, m); err == nil && len(l) > 0 { // what a node wrote that is none is no hint
			return &Start{Machine: name, Text: text, Blocks: l}
		}
	}
	return nil
}
