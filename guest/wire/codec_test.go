// SPDX-License-Identifier: Apache-2.0

package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"reflect"
	"testing"
)

func framed(body string) []byte {
	return append(binary.LittleEndian.AppendUint32(nil, uint32(len(body))), body...)
}

func TestRoundTrip(t *testing.T) {
	frames := []Frame{
		{Hello: &Hello{Version: Version, BootID: "b", PublicKey: "ssh-ed25519 AAAA", Kernel: "6.12", UptimeMs: 3, Running: true, OutputSeq: 9}},
		{Report: &Report{Cmdline: "quiet", Verity: Verity{Table: "0 8 verity 1", Status: "V"}, Mounts: []string{"/ overlay ro"}, Addrs: []string{}, Files: map[string]string{"/a": "00"}}},
		{Started: &Started{PID: 70}},
		{Output: &Output{Seq: 1, Stream: "stdout", Data: []byte{0, 1, 255}}},
		{Health: &Health{OK: true}},
		{Exit: &Exit{Code: -1, Signal: "SIGKILL", OOM: true}},
		{Fatal: &Fatal{Phase: "root", Error: "no disk"}},
		{Config: &Config{Machine: "web", Hosts: map[string]string{"a": "10.0.0.2"}, Entropy: make([]byte, 32)}},
		{Resume: &Resume{OutputFrom: 4}},
		{Start: &Start{}}, {Stop: &Stop{Reason: "end"}}, {ExitOK: &ExitOK{}},
	}
	var stream bytes.Buffer
	for _, f := range frames {
		if err := WriteFrame(&stream, f); err != nil {
			t.Fatal(err)
		}
	}
	for i, want := range frames {
		got, err := ReadFrame(&stream)
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("frame %d: got %+v, want %+v", i, got, want)
		}
	}
	if _, err := ReadFrame(&stream); err != io.EOF {
		t.Errorf("at the end: %v, want io.EOF", err)
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		in   []byte
		want error
	}{
		"too long":        {binary.LittleEndian.AppendUint32(nil, MaxFrame+1), ErrTooLong},
		"cut in length":   {[]byte{1, 0}, io.ErrUnexpectedEOF},
		"cut in body":     {framed(`{"start":{}}`)[:8], io.ErrUnexpectedEOF},
		"body missing":    {[]byte{4, 0, 0, 0}, io.ErrUnexpectedEOF},
		"empty":           {framed(``), ErrMalformed},
		"no message":      {framed(`{}`), ErrMalformed},
		"null message":    {framed(`{"start":null}`), ErrMalformed},
		"two messages":    {framed(`{"start":{},"stop":{"reason":""}}`), ErrMalformed},
		"unknown message": {framed(`{"shell":{}}`), ErrMalformed},
		"unknown field":   {framed(`{"stop":{"reason":"","now":true}}`), ErrMalformed},
		"trailing":        {framed(`{"start":{}} {}`), ErrMalformed},
		"not an object":   {framed(`[1]`), ErrMalformed},
		"wrong type":      {framed(`{"started":{"pid":"one"}}`), ErrMalformed},
	} {
		if _, err := ReadFrame(bytes.NewReader(c.in)); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
	if err := WriteFrame(io.Discard, Frame{}); !errors.Is(err, ErrMalformed) {
		t.Errorf("writing an empty frame: %v", err)
	}
	if err := WriteFrame(io.Discard, Frame{Output: &Output{Data: make([]byte, MaxFrame)}}); !errors.Is(err, ErrTooLong) {
		t.Errorf("writing a long frame: %v", err)
	}
}

// What Decode accepts, Encode writes, and Decode then reads the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{`{"start":{}}`, `{"hello":{"version":1,"running":false}}`, `{"output":{"seq":1,"stream":"stderr","data":"AA=="}}`,
		`{"config":{"machine":"m","files":[{"path":"/a","content":null}],"check":{"kind":"tcp"}}}`, `{"exit":{"code":-1}}`, `{}`, `[]`, ``} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		frame, err := Decode(body)
		if err != nil {
			return
		}
		again, err := Encode(frame)
		if errors.Is(err, ErrTooLong) {
			return // escapes may make it longer than it came
		}
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		second, err := Decode(again)
		if err != nil {
			t.Fatalf("decode what was encoded: %v", err)
		}
		if third, err := Encode(second); err != nil || !bytes.Equal(again, third) {
			t.Fatalf("not stable: %s / %s (%v)", again, third, err)
		}
	})
}
