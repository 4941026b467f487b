// SPDX-License-Identifier: Apache-2.0

package netlink

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestAttrs(t *testing.T) {
	b := Attr(nil, 1, []byte("abc"))
	b = Attr(b, 2|unix.NLA_F_NESTED, Attr(nil, 7, Uint32(9)))
	got, err := Attrs(b)
	if err != nil || len(got) != 2 || got[0].Type != 1 || string(got[0].Data) != "abc" || got[1].Type != 2 {
		t.Fatalf("%+v, %v", got, err)
	}
	inner, err := Attrs(got[1].Data)
	if err != nil || len(inner) != 1 || !bytes.Equal(inner[0].Data, Uint32(9)) {
		t.Errorf("%+v, %v", inner, err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(encode(3, 5, 7, Attr(nil, 1, []byte("x"))))
	f.Add([]byte{0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		for range 1 << 20 {
			m, _, rest, err := decode(b)
			if err != nil {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("does not advance")
			}
			if attrs, err := Attrs(m.Body); err == nil && len(attrs) > len(m.Body) {
				t.Fatal("more attributes than bytes")
			}
			b = rest
		}
	})
}

// The kernel is the judge of the encoding: loopback exists everywhere.
func TestKernel(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Skipf("SKIP netlink: %v", err)
	}
	body := make([]byte, unix.SizeofIfInfomsg)
	answers, err := c.Do(unix.RTM_GETLINK, 0, Attr(body, unix.IFLA_IFNAME, []byte("lo\x00")))
	if err != nil || len(answers) != 1 {
		t.Fatalf("%d answers, %v", len(answers), err)
	}
	attrs, err := Attrs(answers[0].Body[unix.SizeofIfInfomsg:])
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, a := range attrs {
		found = found || (a.Type == unix.IFLA_IFNAME && string(a.Data) == "lo\x00")
	}
	if !found {
		t.Errorf("no name in %+v", attrs)
	}
	if _, err := c.Do(unix.RTM_GETLINK, 0, Attr(body, unix.IFLA_IFNAME, []byte("none-such\x00"))); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an interface that is not there: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
}
