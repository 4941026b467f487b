// SPDX-License-Identifier: Apache-2.0

package flash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
)

const (
	// window is how much of both ends belongs to the disk itself: every partition
	// table, and what file systems, RAID and LVM begin or end with, stands in it.
	window = 1 << 20
	// samples of so many bytes each are looked at where the image does not reach: a
	// disk of terabytes takes seconds, and data of a thousandth of it is seen.
	samples    = 1024
	sampleSize = 64 << 10
)

// signatures are what people know by name; anything else that is not zero is data.
var signatures = []struct {
	at   int
	text string
	name string
}{
	{512, "EFI PART", "a GPT partition table"}, {4096, "EFI PART", "a GPT partition table"}, {510, "\x55\xaa", "a boot sector"},
	{1080, "\x53\xef", "an ext file system"}, {0, "XFSB", "an XFS file system"}, {65600, "_BHRfS_M", "a Btrfs file system"},
	{0, "LUKS\xba\xbe", "an encrypted volume"}, {536, "LVM2", "an LVM volume"}, {32769, "CD001", "an ISO image"},
}

// span is a part of a disk.
type span struct{ from, to int64 }

// parts are what is looked at: all that would be overwritten, samples of what
// lies between, and the end.
func parts(size, written int64) []span {
	written = min(max(written, window), size)
	tail := max(written, size-window)
	all := []span{{0, written}}
	if rest := tail - written; rest > samples*sampleSize {
		for i := range int64(samples) {
			at := written + i*((rest-sampleSize)/(samples-1))
			all = append(all, span{at, at + sampleSize})
		}
	} else if rest > 0 {
		all = append(all, span{written, tail})
	}
	if size > tail {
		all = append(all, span{tail, size})
	}
	return all
}

// holds says what a disk has, and how much of it was read to say so: "" when all
// of that is zeros. written bytes from the beginning on would be overwritten.
func holds(ctx context.Context, r io.ReaderAt, size, written int64, progress Progress) (what string, looked int64, err error) {
	all := parts(size, written)
	var total int64
	for _, p := range all {
		total += p.to - p.from
	}
	for _, p := range all {
		err := each(ctx, "looking", p.from, p.to, func(step string, done, _ int64) {
			if progress != nil {
				progress(step, looked+done, total)
			}
		}, func(b []byte, at int64) error {
			if _, err := r.ReadAt(b, at); err != nil && !errors.Is(err, io.EOF) {
				return fmt.Errorf("look at the disk: %w", err)
			}
			if what == "" {
				what = named(b, at)
			}
			if what != "" {
				return errFound
			}
			return nil
		})
		if errors.Is(err, errFound) {
			return what, looked, nil
		}
		if err != nil {
			return "", looked, err
		}
		looked += p.to - p.from
	}
	return "", looked, nil
}

// errFound ends the looking.
var errFound = errors.New("found")

// named says what stands in one piece of a disk, "" for zeros.
func named(b []byte, at int64) string {
	for _, s := range signatures {
		if end := s.at + len(s.text); at == 0 && end <= len(b) && string(b[s.at:end]) == s.text {
			return s.name
		}
	}
	data := bytes.TrimLeft(b, "\x00")
	if len(data) == 0 {
		return ""
	}
	first := at + int64(len(b)-len(data))
	if first < window {
		return "data"
	}
	return fmt.Sprintf("data, such as at byte %d", first)
}
