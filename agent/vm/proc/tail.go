// SPDX-License-Identifier: Apache-2.0

package proc

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/zos-node/zos/agent/vm"
)

// A guest can make its VMM write: console output, a device reset per event, a
// warning per odd request. Each file is kept to about twice keep bytes by
// giving the storage of its older part back (a hole); the VMM's own position
// in the file stays right, which truncation would not allow.
const (
	keep      = 256 << 10
	maxObject = 64 << 10 // of one event
	maxEvents = 2        // one panic and one reboot; later ones say nothing new
)

// lookEvery is how long a panic can go unnoticed when no change is signalled.
const lookEvery = time.Second

// Parsed is what one object of the event file means.
type Parsed struct {
	Booted bool     // the guest's processors run
	Kill   bool     // the VM must not go on
	Event  vm.Event // Kind "" when it is none
}

// ParseFunc reads one JSON object of the event file.
type ParseFunc func(object []byte, now time.Time) (Parsed, error)

// watch follows the files of the VMM until it is gone, then tells the end.
func (p *Process) watch() {
	ended := make(chan string, 1)
	go func() { ended <- p.wait() }()
	changed, stop, err := p.inotify()
	if err != nil {
		// The clock below looks all the same; only later.
		p.log.Error("files of the VMM are looked at by the clock alone", "machine", p.state.ID, "every", lookEvery, "err", err)
	}
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	var partial []byte
	var detail string
	for detail == "" {
		partial = p.step(partial)
		select {
		case <-changed:
		case <-tick.C:
		case detail = <-ended:
		}
	}
	p.step(partial)
	if stop != nil {
		stop()
	}
	p.detail = detail
	close(p.done)
	if p.pidfd >= 0 {
		if err := unix.Close(p.pidfd); err != nil {
			p.log.Warn("close pidfd", "machine", p.state.ID, "err", err)
		}
	}
	p.events <- vm.Event{Kind: vm.EventExit, At: time.Now(), Detail: detail}
	close(p.events)
}

// step takes in what is new.
func (p *Process) step(partial []byte) []byte {
	partial, err := p.readEvents(partial)
	if err != nil {
		// A VM that may have panicked unseen must not go on.
		p.log.Error("the events of the VMM cannot be read; the VM is ended", "machine", p.state.ID, "err", err)
		if err := killCgroup(p.state.ID); err != nil {
			p.log.Error("kill the VM", "machine", p.state.ID, "err", err)
		}
	}
	for _, name := range []string{SerialFile, LogFile} {
		if err := punch(filepath.Join(p.dir, name), -1); err != nil && !errors.Is(err, os.ErrNotExist) {
			p.log.Warn("bound a file of the VMM", "machine", p.state.ID, "err", err)
		}
	}
	return partial
}

// inotify signals when anything in the directory was written. Many signals
// become one: the reader takes all that is there.
func (p *Process) inotify() (<-chan struct{}, func(), error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, nil, fmt.Errorf("inotify: %w", err)
	}
	f := os.NewFile(uintptr(fd), "inotify")
	if _, err := unix.InotifyAddWatch(fd, p.dir, unix.IN_MODIFY); err != nil {
		return nil, nil, errors.Join(fmt.Errorf("inotify: %w", err), f.Close())
	}
	changed := make(chan struct{}, 1)
	go func() {
		buf := make([]byte, 4096)
		for {
			if _, err := f.Read(buf); err != nil {
				return // closed by stop
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, func() {
		if err := f.Close(); err != nil {
			p.log.Warn("close inotify", "machine", p.state.ID, "err", err)
		}
	}, nil
}

// readEvents reads on from state.Offset plus what partial holds already.
func (p *Process) readEvents(partial []byte) (rest []byte, err error) {
	f, err := os.Open(filepath.Join(p.dir, EventsFile))
	if err != nil {
		return partial, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	buf := make([]byte, 32<<10)
	for {
		n, err := f.ReadAt(buf, p.state.Offset+int64(len(partial)))
		partial = append(partial, buf[:n]...)
		if used := p.take(partial); used > 0 {
			partial = slices.Clone(partial[used:])
			p.state.Offset += int64(used)
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return partial, err
		}
	}
	return partial, p.boundEvents()
}

// boundEvents gives back storage behind what was read; the new offset is
// written down first, as what lies before it cannot be read again.
func (p *Process) boundEvents() error {
	if p.state.Offset-p.punched < keep {
		return nil
	}
	if err := p.writeState(); err != nil {
		return err
	}
	p.punched = p.state.Offset
	return punch(filepath.Join(p.dir, EventsFile), p.state.Offset)
}

// take handles whole objects at the start of b and says how many bytes they
// were.
func (p *Process) take(b []byte) (used int) {
	for {
		n, object, err := next(b[used:])
		if err != nil {
			p.log.Warn("event of the VMM is not understood", "machine", p.state.ID, "err", err)
		}
		used += n
		if object == nil && err == nil {
			return used
		}
		if object != nil {
			p.handle(object)
		}
	}
}

// next finds the first JSON object of a stream: n bytes are done with, object
// is nil when it is not complete yet. Bytes that are no JSON are skipped up to
// the next line with an error.
func next(b []byte) (n int, object []byte, err error) {
	start := len(b) - len(bytes.TrimLeft(b, "\x00 \t\r\n"))
	if start == len(b) {
		return start, nil, nil
	}
	d := json.NewDecoder(bytes.NewReader(b[start:]))
	var raw json.RawMessage
	err = d.Decode(&raw)
	switch {
	case err == nil:
		return start + int(d.InputOffset()), raw, nil
	case errors.Is(err, io.ErrUnexpectedEOF) && len(b)-start <= maxObject:
		return start, nil, nil
	}
	if i := bytes.IndexByte(b[start:], '\n'); i >= 0 {
		return start + i + 1, nil, err
	}
	return len(b), nil, err
}

// handle keeps the first event of a kind, before anybody can act on it: an
// agent that dies between the two finds it again.
func (p *Process) handle(object []byte) {
	parsed, err := p.parse(object, time.Now())
	if err != nil {
		p.log.Warn("event of the VMM is not understood", "machine", p.state.ID, "err", err)
		return
	}
	if parsed.Booted {
		select {
		case <-p.started:
		default:
			close(p.started)
		}
	}
	if parsed.Kill {
		if err := killCgroup(p.state.ID); err != nil {
			p.log.Error("kill the VM", "machine", p.state.ID, "err", err)
		}
	}
	e := parsed.Event
	if e.Kind == "" || slices.ContainsFunc(p.state.Seen, func(s vm.Event) bool { return s.Kind == e.Kind }) {
		return
	}
	p.state.Seen = append(p.state.Seen, e)
	if err := p.writeState(); err != nil {
		p.log.Error("state of the VM", "machine", p.state.ID, "err", err)
	}
	p.events <- e
}

// punch gives back the storage of a file's part before end, or, with end < 0,
// of all but its last keep bytes once it grew by keep.
func punch(name string, end int64) (err error) {
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if end < 0 {
		info, err := f.Stat()
		if err != nil {
			return err
		}
		if info.Sys().(*syscall.Stat_t).Blocks*512 < 2*keep {
			return nil
		}
		end = info.Size() - keep
	}
	if err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, end); err != nil {
		return fmt.Errorf("give back %s: %w", name, err)
	}
	return nil
}

// tail is the last part of a file in the VM's directory, for a message.
func (p *Process) tail(name string, limit int64) string {
	f, err := os.Open(filepath.Join(p.dir, name))
	if err != nil {
		return err.Error()
	}
	b, err := func() ([]byte, error) {
		info, err := f.Stat()
		if err != nil {
			return nil, err
		}
		return io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-limit), limit))
	}()
	if err = errors.Join(err, f.Close()); err != nil {
		return err.Error()
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(bytes.Trim(b, "\x00")), "?"))
}

// LogTail is what the VMM said last.
func (p *Process) LogTail() string { return p.tail(LogFile, 2000) }

// SerialTail is what the guest's kernel said last on its console.
func (p *Process) SerialTail() string { return p.tail(SerialFile, 8000) }
