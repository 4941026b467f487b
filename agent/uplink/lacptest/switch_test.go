// SPDX-License-Identifier: Apache-2.0

package lacptest

import (
	"bytes"
	"net"
	"testing"
	"time"
)

func TestPDU(t *testing.T) {
	p := PDU{Info{1, [6]byte{2, 3, 4, 5, 6, 7}, 8, 9, 10, 0x3d}, Info{11, [6]byte{12}, 13, 14, 15, 0x47}}
	frame := p.Encode([6]byte{2, 0, 0, 0, 0, 1})
	if got, ok := Decode(frame); !ok || got != p || len(frame) != headLen+pduLen {
		t.Errorf("%+v %v, %d bytes", got, ok, len(frame))
	}
	for i := range frame {
		if _, ok := Decode(frame[:i]); ok {
			t.Errorf("took %d bytes", i)
		}
	}
}

// TestAggregate is a partner by hand: frames pass only in step.
func TestAggregate(t *testing.T) {
	port, node := net.Pipe()
	outside, world := net.Pipe()
	s := New(outside, port)
	seen, got := make(chan []byte, 100), make(chan PDU, 100)
	go frames(world, func(f []byte) { seen <- f })
	go frames(node, func(f []byte) {
		if p, ok := Decode(f); ok {
			got <- p
		}
	})
	ours := Info{System: [6]byte{2, 9}, Port: 1, State: Activity | ShortTimeout | Aggregation}
	say := func(state byte) PDU {
		t.Helper()
		ours.State |= state
		if _, err := node.Write(PDU{Actor: ours}.Encode(ours.System)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.After(time.Minute); ; {
			select {
			case p := <-got:
				if p.Partner == ours {
					return p
				}
			case <-deadline:
				t.Fatal("no answer")
			}
		}
	}
	frame := append(bytes.Repeat([]byte{2}, 12), 8, 0, 1, 2, 3)
	if p := say(0); p.Actor.State&Distributing != 0 {
		t.Errorf("%+v before we are in step", p.Actor)
	}
	if _, err := node.Write(frame); err != nil { // is dropped
		t.Fatal(err)
	}
	if p := say(Synchronization | Collecting | Distributing); p.Actor.State&Distributing == 0 {
		t.Errorf("%+v in step", p.Actor)
	}
	if n := s.Carried()[0]; n != 0 {
		t.Errorf("carried %d frames before we were in step", n)
	}
	if _, err := node.Write(frame); err != nil {
		t.Fatal(err)
	}
	if f := <-seen; !bytes.Equal(f, frame) {
		t.Errorf("%x", f)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
