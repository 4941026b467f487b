// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"encoding/binary"
	"os/exec"
	"strings"
	"testing"
)

// random is content that does not compress.
func random(n int) []byte {
	b := make([]byte, n)
	x := uint64(1)
	for i := range b {
		x = x*6364136223846793005 + 1442695040888963407
		b[i] = byte(x >> 56)
	}
	return b
}

// noise is content that does not compress, between parts that do, longer than
// one block of LZ4.
func noise() []byte {
	b := bytes.Repeat([]byte("zos "), (lz4Block+lz4Block/2)/4)
	copy(b[lz4Block-4096:], random(8192))
	return b
}

func TestPack(t *testing.T) {
	for how := range packers {
		for name, in := range map[string][]byte{"empty": nil, "short": []byte("070701"), "blocks": noise(), "no smaller": random(lz4Block + 4096)} {
			one, err := Pack(how, in)
			if err != nil {
				t.Fatalf("%s: %v", how, err)
			}
			two, err := Pack(how, in)
			if err != nil || !bytes.Equal(one, two) {
				t.Errorf("%s, %s: not the same twice: %v", how, name, err)
			}
			if packing(one) != how && len(in) > 0 {
				t.Errorf("%s, %s: taken for %s", how, name, packing(one))
			}
			if out, err := unpacked(one, maxInitramfs); err != nil || !bytes.Equal(out, in) {
				t.Errorf("%s, %s: does not come back: %v", how, name, err)
			}
		}
		// More than may be, as a bomb would.
		packed, err := Pack(how, noise())
		if err != nil {
			t.Fatal(err)
		}
		if out, err := unpacked(packed, lz4Block); err == nil && len(out) > lz4Block {
			t.Errorf("%s: %d bytes, although %d are the limit", how, len(out), lz4Block)
		}
	}
	if _, err := Pack("bzip2", nil); err == nil || !strings.Contains(err.Error(), "lz4, zstd") {
		t.Errorf("bzip2: %v", err)
	}
}

// TestLZ4IsLZ4: the format's own tool reads it.
func TestLZ4IsLZ4(t *testing.T) {
	tool, err := exec.LookPath("lz4")
	if err != nil {
		t.Skip("SKIP: lz4 is not installed")
	}
	for _, in := range [][]byte{noise(), random(lz4Block + 4096)} {
		packed, err := LZ4(in)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(tool, "-dc")
		cmd.Stdin = bytes.NewReader(packed[:len(packed)-wordLen]) // without the kernel's end
		out, err := cmd.Output()
		if err != nil || !bytes.Equal(out, in) {
			t.Errorf("lz4 -dc: %d bytes, %v", len(out), err)
		}
		if !bytes.Equal(packed[len(packed)-wordLen:], make([]byte, wordLen)) {
			t.Error("no end that the kernel sees")
		}
	}
}

func TestUnpackLZ4Refuses(t *testing.T) {
	good, err := LZ4(noise())
	if err != nil {
		t.Fatal(err)
	}
	long := bytes.Clone(good)
	binary.LittleEndian.PutUint32(long[wordLen:], uint32(len(good)))
	bad := bytes.Clone(good)
	for i := range bad[8:40] { // the first token and what follows
		bad[8+i] = 0xff
	}
	for name, b := range map[string][]byte{"empty": nil, "other magic": []byte("070701"), "cut": good[:len(good)/2], "block beyond the end": long, "altered": bad, "no end": good[:len(good)-wordLen],
		"an archive behind it": append(bytes.Clone(good), "\x00\x00\x00\x00070701"...)} {
		if out, err := unpackLZ4(b, maxInitramfs); err == nil {
			t.Errorf("%s: taken, %d bytes", name, len(out))
		}
	}
}

func FuzzUnpackLZ4(f *testing.F) {
	for _, in := range []string{"", "070701", strings.Repeat("zos ", 100)} {
		b, err := LZ4([]byte(in))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		const limit = 1 << 20
		if out, err := unpackLZ4(b, limit); err == nil && len(out) > limit {
			t.Errorf("%d bytes", len(out))
		}
	})
}
