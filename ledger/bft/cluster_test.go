// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
)

// link is a TCP proxy between two validators: what one dials to reach the
// other. Cut, it ends what is there and takes nothing new; with a delay, each
// chunk of bytes comes late, and some much later, as after a loss.
type link struct {
	l     net.Listener
	to    string
	mu    sync.Mutex
	cut   bool
	delay time.Duration
	conns map[net.Conn]bool
	seen  atomic.Int64 // connections that it carried
	shut  atomic.Int64 // connections that a cut ended or kept out
}

func newLink(t testing.TB, to string) *link {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	k := &link{l: l, to: to, conns: map[net.Conn]bool{}}
	t.Cleanup(func() { l.Close(); k.set(true, 0) })
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go k.carry(in)
		}
	}()
	return k
}

func (k *link) carry(in net.Conn) {
	defer in.Close()
	k.mu.Lock()
	cut := k.cut
	k.mu.Unlock()
	if cut {
		k.shut.Add(1)
		return
	}
	out, err := net.DialTimeout("tcp", k.to, 5*time.Second)
	if err != nil {
		return
	}
	defer out.Close()
	k.seen.Add(1)
	k.mu.Lock()
	k.conns[in], k.conns[out] = true, true
	k.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { k.pass(in, out) })
	both.Go(func() { k.pass(out, in) })
	both.Wait()
	k.mu.Lock()
	delete(k.conns, in)
	delete(k.conns, out)
	k.mu.Unlock()
}

func (k *link) pass(from, to net.Conn) {
	defer to.Close()
	b := make([]byte, 32<<10)
	for {
		n, err := from.Read(b)
		k.mu.Lock()
		delay := k.delay
		k.mu.Unlock()
		if delay > 0 {
			if rand.IntN(10) < 3 { // what TCP makes of a lost packet
				delay *= 2
			}
			time.Sleep(delay)
		}
		if n > 0 {
			if _, err := to.Write(b[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

func (k *link) set(cut bool, delay time.Duration) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.cut, k.delay = cut, delay
	if cut {
		for c := range k.conns {
			c.Close()
			k.shut.Add(1)
		}
	}
}

// cluster is a group whose validators are processes, connected by links.
type cluster struct {
	*group
	srv   []*server
	links map[[2]int]*link
	n     atomic.Int64
	got   *kept
}

// newCluster starts n validators.
func newCluster(t testing.TB, n int) *cluster {
	t.Helper()
	return newClusterOver(t, n, n, "", "")
}

// newClusterOver has them listen on one host and reach each other at another; ""
// is loopback, through links. The first of them are validators, the others follow.
func newClusterOver(t testing.TB, n, validators int, listen, reach string) *cluster {
	t.Helper()
	c := &cluster{group: newGroup(t, n), srv: make([]*server, n), links: map[[2]int]*link{}, got: &kept{entries: map[int64][]byte{}, want: -1}}
	for i := range n {
		m, err := LoadMesh(c.dirs[i])
		if err != nil {
			t.Fatal(err)
		}
		m.Peers = nil
		for j := range n {
			if i == j {
				continue
			}
			id, address, _ := strings.Cut(c.desc[j].Peer, "@")
			if listen != "" {
				m.Listen = strings.Replace(m.Listen, "127.0.0.1", listen, 1)
				m.Add(id + "@" + strings.Replace(address, "127.0.0.1", reach, 1))
				continue
			}
			c.links[[2]int{i, j}] = newLink(t, address)
			m.Add(id + "@" + c.links[[2]int{i, j}].l.Addr().String())
		}
		if err := m.Save(c.dirs[i]); err != nil {
			t.Fatal(err)
		}
		c.srv[i] = start(t, c.dirs[i], "")
	}
	members := make([]int, validators)
	for i := range members {
		members[i] = i
	}
	cl := client(t, c.dirs[0], c.dirs[0])
	if err := cl.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	rotation := c.rotation(cl.State(), members...)
	waitFor(t, fmt.Sprintf("the rotation to %d validators", validators), func() bool {
		_, err := cl2(t, c.dirs[0], c.srv[0].url).Submit(t.Context(), rotation)
		return err == nil
	})
	return c
}

// cl2 is a client that gives up soon enough for a test.
func cl2(t testing.TB, dir, url string) *ledger.Client {
	t.Helper()
	return client(t, dir, url)
}

// apart cuts every link between the two sides, or joins them again.
func (c *cluster) apart(cut bool, side ...int) {
	in := map[int]bool{}
	for _, i := range side {
		in[i] = true
	}
	for ends, k := range c.links {
		if in[ends[0]] != in[ends[1]] {
			k.set(cut, 0)
		}
	}
}

func (c *cluster) slow(d time.Duration) {
	for _, k := range c.links {
		k.set(false, d)
	}
}

// entry is one that was not there before.
func (c *cluster) entry() []byte {
	return c.log.Register(fmt.Sprintf("d%d", c.n.Add(1)), 1, nil)
}

// try submits to one validator, once.
func (c *cluster) try(i int, entry []byte) (ledger.Receipt, error) {
	return cl2(c.t, c.dirs[0], c.srv[i].url).Submit(c.t.Context(), entry)
}

// put submits an entry to one validator until it has a receipt, which is
// kept, and says how long that took.
func (c *cluster) put(i int, entry []byte) time.Duration {
	c.t.Helper()
	begin := time.Now()
	var r ledger.Receipt
	waitFor(c.t, fmt.Sprintf("a receipt of validator %d", i+1), func() (ok bool) {
		var err error
		r, err = c.try(i, entry)
		var refused *ledger.Refused
		if errors.As(err, &refused) {
			c.t.Fatalf("refused: %v", err)
		}
		return err == nil
	})
	if err := c.got.add(r, entry); err != nil {
		c.t.Fatal(err)
	}
	return time.Since(begin)
}

// halted wants validator i to take nothing, and to say why.
func (c *cluster) halted(i int, says ...string) {
	c.t.Helper()
	var last error
	entry := c.entry() // it may be ordered when the others are back
	waitFor(c.t, fmt.Sprintf("validator %d to say that it stands still", i+1), func() bool {
		_, last = c.try(i, entry)
		if last == nil {
			c.t.Fatal("an entry got a receipt without a quorum")
		}
		for _, s := range says {
			if !strings.Contains(last.Error(), s) {
				return false
			}
		}
		return true
	})
	resp, err := http.Get(c.srv[i].url + "/healthz")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	if b, err := io.ReadAll(resp.Body); err != nil || resp.StatusCode != http.StatusServiceUnavailable {
		c.t.Errorf("healthz of validator %d: %s: %s", i+1, resp.Status, b)
	}
}

// load submits from several clients to all validators until stopped. An entry
// without an answer is submitted again, to another one.
func (c *cluster) load(workers int) (stop func() int) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var all sync.WaitGroup
	var done atomic.Int64
	root := c.dirs[0]
	for range workers {
		all.Go(func() {
			for ctx.Err() == nil {
				entry := c.entry()
				for ctx.Err() == nil {
					i := rand.IntN(len(c.srv))
					r, err := cl2(c.t, root, c.srv[i].url).Submit(ctx, entry)
					var refused *ledger.Refused
					if errors.As(err, &refused) {
						c.t.Errorf("refused under load: %v", err)
						return
					}
					if err == nil {
						if err := c.got.add(r, entry); err != nil {
							c.t.Error(err)
						}
						done.Add(1)
						break
					}
					time.Sleep(100 * time.Millisecond)
				}
			}
		})
	}
	return func() int { cancel(); all.Wait(); return int(done.Load()) }
}

// dead counts the validators that nobody can connect to.
func (c *cluster) dead() (n int) {
	for _, s := range c.srv {
		conn, err := net.DialTimeout("tcp", strings.TrimPrefix(s.url, "http://"), 10*time.Second)
		if err != nil {
			n++
			continue
		}
		conn.Close()
	}
	return n
}

// same waits until all validators publish the same log, and holds it against
// every receipt. One client reads them all, so that a fork would show.
func (c *cluster) same() (size int64) {
	c.t.Helper()
	one := client(c.t, c.dirs[0], c.srv[0].url)
	for i := range c.srv {
		waitFor(c.t, fmt.Sprintf("validator %d to have what the others have", i+1), func() bool {
			cl := client(c.t, c.dirs[0], c.srv[i].url)
			err := cl.Sync(c.t.Context())
			if errors.Is(err, ledger.ErrForged) || errors.Is(err, ledger.ErrFork) {
				c.t.Fatalf("validator %d: %v", i+1, err)
			}
			if err == nil {
				err = one.Sync(c.t.Context())
			}
			if err != nil || cl.Checkpoint().N < one.Checkpoint().N {
				return false
			}
			if cl.Checkpoint().N == one.Checkpoint().N && cl.Checkpoint().Hash != one.Checkpoint().Hash {
				c.t.Fatalf("validator %d has another tree of size %d", i+1, cl.Checkpoint().N)
			}
			for index := range c.got.entries {
				if index >= cl.Checkpoint().N {
					return false // not yet; if never, it is lost
				}
			}
			for index, entry := range c.got.entries {
				if got, err := cl.Entries().Get(c.t.Context(), index); err != nil || !bytes.Equal(got, entry) {
					c.t.Fatalf("validator %d: entry %d had a receipt and is not there: %v", i+1, index, err)
				}
			}
			return true
		})
	}
	return one.Checkpoint().N
}

// lose takes a stopped validator's folder away and puts back what a backup has.
func (c *cluster) lose(i int) {
	c.t.Helper()
	old := c.dirs[i] + "-old"
	if err := os.Rename(c.dirs[i], old); err != nil {
		c.t.Fatal(err)
	}
	for _, d := range []string{"keys", "log", "comet/data"} {
		if err := os.MkdirAll(filepath.Join(c.dirs[i], d), 0o700); err != nil {
			c.t.Fatal(err)
		}
	}
	for _, f := range []string{"root.json", "validator.json", "mesh.json", "comet/genesis.json", "comet/data/signed.json",
		"keys/log.key", "keys/validator.key", "keys/consensus.json", "keys/p2p.json"} {
		if err := os.Rename(filepath.Join(old, f), filepath.Join(c.dirs[i], f)); err != nil {
			c.t.Fatal(err)
		}
	}
}

// TestFourValidatorsInProcesses is the short part: one of four killed, then
// two, then all there again, one of them with a new disk. make test-ledger has the long one.
func TestFourValidatorsInProcesses(t *testing.T) {
	c := newCluster(t, 4)
	c.put(3, c.entry())
	c.srv[3].kill(t)
	for i := range 3 {
		c.put(i, c.entry())
	}
	c.srv[2].kill(t)
	c.halted(0, "2 of 4 validators answer, 3 are needed", "/v3", "/v4")
	if err := client(t, c.dirs[0], c.srv[1].url).Sync(t.Context()); err != nil {
		t.Errorf("a ledger that stands still can be read: %v", err)
	}
	c.lose(3) // its disk, but for what docs/ledger.md says to keep
	for _, i := range []int{2, 3} {
		c.srv[i] = start(t, c.dirs[i], "")
	}
	for i := range 4 {
		c.put(i, c.entry())
	}
	c.same()
}
