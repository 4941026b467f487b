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

// getLink asks for an interface by name; the kernel's answer to another name
// is another.
func getLink(name string) []byte {
	return Attr(make([]byte, unix.SizeofIfInfomsg), unix.IFLA_IFNAME, []byte(name+"\x00"))
}

// Any process may send to the socket. A forged refusal lies there before the
// kernel's answer comes, with the right sequence number, and is not taken.
func TestOnlyTheKernelAnswers(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Skipf("SKIP netlink sender: %v", err)
	}
	forger, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := errors.Join(c.Close(), forger.Close()); err != nil {
			t.Error(err)
		}
	}()
	name, err := unix.Getsockname(c.fd)
	if err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: name.(*unix.SockaddrNetlink).Pid}
	const refusal = -int32(unix.EXDEV) // the kernel would not say that here
	forged := encode(unix.NLMSG_ERROR, 0, c.seq+1, append(Uint32(uint32(0xffffffff&int64(refusal))), make([]byte, headerSize)...))
	if err := unix.Sendto(forger.fd, forged, 0, to); errors.Is(err, unix.EPERM) {
		t.Skipf("SKIP netlink sender: may not send to another process: %v", err)
	} else if err != nil {
		t.Fatal(err)
	}
	answers, err := c.Do(unix.RTM_GETLINK, 0, getLink("lo"))
	if err != nil || len(answers) != 1 || answers[0].Type != unix.RTM_NEWLINK {
		t.Errorf("the forged answer was taken: %+v, %v", answers, err)
	}
}

func TestFromKernel(t *testing.T) {
	for name, c := range map[string]struct {
		from unix.Sockaddr
		want bool
	}{
		"the kernel":   {&unix.SockaddrNetlink{Family: unix.AF_NETLINK}, true},
		"a group":      {&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}, true},
		"a process":    {&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 7}, false},
		"no address":   {nil, false},
		"not netlink":  {&unix.SockaddrUnix{}, false},
		"PID 1 itself": {&unix.SockaddrNetlink{Family: unix.AF_NETLINK, Pid: 1}, false},
	} {
		if got := fromKernel(c.from); got != c.want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

// What the kernel answered to an earlier request is no answer to this one.
func TestAnswerToAnotherRequest(t *testing.T) {
	c, err := Open(unix.NETLINK_ROUTE)
	if err != nil {
		t.Skipf("SKIP netlink sequence: %v", err)
	}
	defer func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}()
	// The kernel handles a request while it is sent: its answer lies there.
	for _, stale := range []struct {
		seq  uint32
		name string
	}{{77, "none-such"}, {78, "lo"}} {
		if err := unix.Sendto(c.fd, encode(unix.RTM_GETLINK, unix.NLM_F_REQUEST|unix.NLM_F_ACK, stale.seq, getLink(stale.name)), 0,
			&unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
			t.Fatal(err)
		}
	}
	if answers, err := c.Do(unix.RTM_GETLINK, 0, getLink("lo")); err != nil || len(answers) != 1 {
		t.Errorf("an earlier answer was taken: %+v, %v", answers, err)
	}
	if answers, err := c.Do(unix.RTM_GETLINK, 0, getLink("none-such")); !errors.Is(err, unix.ENODEV) {
		t.Errorf("an earlier answer was taken: %+v, %v", answers, err)
	}
}
