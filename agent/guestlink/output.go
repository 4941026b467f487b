// SPDX-License-Identifier: Apache-2.0

package guestlink

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/guest/wire"
)

const (
	// maxOutput bounds the file; when it is full, it becomes the old one and a
	// new one begins, so that between one and two times this is kept.
	maxOutput = 512 << 10
	tailLen   = 2 << 10
	oldExt    = ".old"
	seqExt    = ".seq"
)

// output keeps what a process wrote, bounded on disk and in memory.
type output struct {
	mu   sync.Mutex
	path string
	f    *os.File
	size int64
	seq  int64 // of the next piece
	last []byte
}

func openOutput(path string) (*output, error) {
	o := &output{path: path}
	b, err := os.ReadFile(path + seqExt)
	if err == nil {
		if o.seq, err = strconv.ParseInt(strings.TrimSpace(string(b)), 10, 64); err != nil {
			return nil, fmt.Errorf("output of guest: %w", err)
		}
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("output of guest: %w", err)
	}
	if err := o.open(); err != nil {
		return nil, err
	}
	return o, nil
}

func (o *output) open() error {
	f, err := os.OpenFile(o.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("output of guest: %w", err)
	}
	st, err := f.Stat()
	if err != nil {
		return errors.Join(fmt.Errorf("output of guest: %w", err), f.Close())
	}
	o.f, o.size = f, st.Size()
	return nil
}

// next is the number of the first piece that is not here yet.
func (o *output) next() int64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.seq
}

func (o *output) write(p wire.Output) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if p.Seq < o.seq || o.f == nil {
		return nil // sent again after a resumption, or after the end
	}
	if o.size+int64(len(p.Data)) > maxOutput {
		if err := errors.Join(o.f.Close(), os.Rename(o.path, o.path+oldExt), o.open()); err != nil {
			return fmt.Errorf("output of guest: %w", err)
		}
	}
	data := p.Data
	if p.Seq > o.seq && o.seq > 0 {
		data = append(fmt.Appendf(nil, "\n[output lost, %d bytes so far]\n", p.Dropped), data...)
	}
	n, err := o.f.Write(data)
	o.size += int64(n)
	if err != nil {
		return fmt.Errorf("output of guest: %w", err)
	}
	o.last = append(o.last, data...)
	o.last = append([]byte(nil), o.last[max(0, len(o.last)-tailLen):]...)
	o.seq = p.Seq + 1
	if err := renameio.WriteFile(o.path+seqExt, strconv.AppendInt(nil, o.seq, 10), 0o600); err != nil {
		return fmt.Errorf("output of guest: %w", err)
	}
	return nil
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return strings.ToValidUTF8(string(o.last), "?")
}

func (o *output) close() error {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.f == nil {
		return nil
	}
	err := o.f.Close()
	o.f = nil
	return err
}

// Files are all that Listen makes for an output path.
func Files(path string) []string { return []string{path, path + oldExt, path + seqExt} }
