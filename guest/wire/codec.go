// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// Errors of the codec, for errors.Is.
var (
	// ErrTooLong is a frame over MaxFrame.
	ErrTooLong = errors.New("frame is too long")
	// ErrMalformed is a frame that is not exactly one known message.
	ErrMalformed = errors.New("malformed frame")
)

// ReadFrame reads the next frame. io.EOF means that the stream ended between
// two frames; inside a frame that is io.ErrUnexpectedEOF. The length is
// checked before anything is allocated for it: each side talks to a peer that
// it does not trust.
func ReadFrame(r io.Reader) (Frame, error) {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return Frame{}, err
	}
	n := binary.LittleEndian.Uint32(head[:])
	if n > MaxFrame {
		return Frame{}, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, n, MaxFrame)
	}
	body := make([]byte, n)
	if _, err := io.ReadFull(r, body); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return Frame{}, err
	}
	return Decode(body)
}

// WriteFrame writes one frame in one Write call, so that a broken connection
// never leaves two writers' frames mixed.
func WriteFrame(w io.Writer, f Frame) error {
	body, err := Encode(f)
	if err != nil {
		return err
	}
	b := make([]byte, 4, 4+len(body))
	binary.LittleEndian.PutUint32(b, uint32(len(body)))
	if _, err := w.Write(append(b, body...)); err != nil {
		return fmt.Errorf("write frame: %w", err)
	}
	return nil
}

// Decode reads one frame's JSON: known fields only, nothing behind it, exactly
// one message.
func Decode(body []byte) (Frame, error) {
	var f Frame
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&f); err != nil {
		return Frame{}, fmt.Errorf("%w: %w", ErrMalformed, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return Frame{}, fmt.Errorf("%w: data behind the message", ErrMalformed)
	}
	if n := f.set(); n != 1 {
		return Frame{}, fmt.Errorf("%w: %d messages in one frame", ErrMalformed, n)
	}
	return f, nil
}

// Encode is the reverse of Decode and refuses what Decode would refuse.
func Encode(f Frame) ([]byte, error) {
	if n := f.set(); n != 1 {
		return nil, fmt.Errorf("%w: %d messages in one frame", ErrMalformed, n)
	}
	body, err := json.Marshal(f)
	if err != nil {
		return nil, fmt.Errorf("encode frame: %w", err)
	}
	if len(body) > MaxFrame {
		return nil, fmt.Errorf("%w: %d bytes, at most %d", ErrTooLong, len(body), MaxFrame)
	}
	return body, nil
}

// set counts the messages in a frame.
func (f Frame) set() int {
	n := 0
	for _, is := range []bool{
		f.Hello != nil, f.Report != nil, f.Started != nil, f.Output != nil, f.Health != nil, f.Exit != nil, f.Fatal != nil,
		f.Config != nil, f.Resume != nil, f.Start != nil, f.Stop != nil, f.ExitOK != nil,
	} {
		if is {
			n++
		}
	}
	return n
}
