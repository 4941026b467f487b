// SPDX-License-Identifier: Apache-2.0

//go:build faults

package bft

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
)

// userAgent is a reader that says who it is.
type userAgent string

func (n userAgent) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("User-Agent", string(n))
	return http.DefaultTransport.RoundTrip(r)
}

// reader is a client of the ledger that says who it is.
func (c *cluster) reader(name string, ledgers ...string) *ledger.Client {
	c.t.Helper()
	root, err := os.ReadFile(filepath.Join(c.dirs[0], "root.json"))
	if err != nil {
		c.t.Fatal(err)
	}
	cl, err := ledger.OpenClient(ledger.ClientConfig{Root: root, Ledgers: ledgers, KeepEntries: true, HTTP: &http.Client{Transport: userAgent(name), Timeout: 20 * time.Second}})
	if err != nil {
		c.t.Fatal(err)
	}
	return cl
}

// otherTree is what a dishonest validator can make: the log with one entry
// replaced, every rule applied to it, under the validator's own signatures. It
// returns the folder and its checkpoint.
func (c *cluster) otherTree(i int, cl *ledger.Client, at int64, entry []byte) (dir string, signed []byte) {
	c.t.Helper()
	dir = c.t.TempDir()
	var leaves, block [][]byte
	state := ledger.NewState()
	err := cl.Entries().Range(c.t.Context(), 0, cl.Entries().Len(), func(index int64, raw []byte) error {
		if index == at {
			raw = entry
		}
		e, err := ledger.Decode(raw)
		if err != nil {
			return err
		}
		b, ends := e.Payload.(*ledger.Block)
		if !ends {
			block = append(block, append([]byte{}, raw...))
			return nil
		}
		out := state.Apply(b.Height, b.TimeMs, block)
		if len(out.Refused) > 0 {
			return fmt.Errorf("block %d: %v", b.Height, out.Refused)
		}
		leaves, block = append(leaves, out.Leaves...), nil
		return nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	w := tiles.NewWriter(tiles.Dir(dir))
	for v := int64(1); cl.State().RootEnvelope(v) != nil; v++ {
		if err := w.WriteRoot(v, cl.State().RootEnvelope(v)); err != nil {
			c.t.Fatal(err)
		}
	}
	if int64(len(leaves)) != cl.Entries().Len() {
		c.t.Fatalf("the other log has %d entries, the real one %d", len(leaves), cl.Entries().Len())
	}
	if err := w.Append(leaves); err != nil {
		c.t.Fatal(err)
	}
	keys, err := loadKeys(c.dirs[i])
	if err != nil {
		c.t.Fatal(err)
	}
	if signed, err = keys.Sign(cl.State().Root().Log.Origin, w.Head()); err != nil {
		c.t.Fatal(err)
	}
	return dir, signed
}

// dishonest has the fourth validator serve another tree to one reader, and the
// right one to everybody else.
func (c *cluster) dishonest(run scenario) {
	run("one serves another tree to one reader", func(t *testing.T) (string, string) {
		entry := c.entry()
		c.put(3, entry)
		cl := client(t, c.dirs[0], c.srv[0].url)
		at := int64(-1)
		waitFor(t, "the entry to be read", func() bool {
			if cl.Sync(t.Context()) != nil {
				return false
			}
			e, err := ledger.Decode(entry)
			if err != nil {
				t.Fatal(err)
			}
			i, ok := cl.State().Indexed(e)
			at = i
			return ok
		})
		dir, own := c.otherTree(3, cl, at, c.log.Register("evil", 1, nil))
		real := cl.Checkpoint().Note
		pasted := append([]byte{}, own...) // with the others' signatures of the real tree
		for _, line := range tiles.Lines(real) {
			if name, _, _ := strings.Cut(strings.TrimPrefix(line, "— "), " "); !strings.Contains(string(own), "— "+name+" ") {
				pasted = append(pasted, line+"\n"...)
			}
		}
		honest, err := url.Parse(c.srv[3].url)
		if err != nil {
			t.Fatal(err)
		}
		others := httputil.NewSingleHostReverseProxy(honest)
		lies := ledger.Handler(tiles.Dir(dir), nil, slog.New(slog.DiscardHandler))
		var told atomic.Int64
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("User-Agent") != "victim" {
				others.ServeHTTP(w, r)
				return
			}
			told.Add(1)
			lies.ServeHTTP(w, r)
		}))
		defer server.Close()
		for _, lie := range []struct {
			name       string
			checkpoint []byte
		}{{"signed by itself", own}, {"with the others' signatures of the real one", pasted}, {"under the real checkpoint", real}} {
			if err := os.WriteFile(filepath.Join(dir, "checkpoint"), lie.checkpoint, 0o644); err != nil {
				t.Fatal(err)
			}
			before := told.Load()
			alone := c.reader("victim", server.URL)
			if err := alone.Sync(t.Context()); !errors.Is(err, ledger.ErrForged) || alone.State().DeploymentByName("evil") != nil {
				t.Errorf("%s: a reader that has only this server: %v", lie.name, err)
			}
			two := c.reader("victim", server.URL, c.srv[0].url)
			waitFor(t, "a reader that has another server as well", func() bool { return two.Sync(t.Context()) == nil })
			seen := two.Ledgers()
			if two.State().DeploymentByName("evil") != nil || seen[0].State != "forged" || seen[1].State != "ok" {
				t.Errorf("%s: a reader that has another server as well: %+v", lie.name, seen)
			}
			if told.Load() == before {
				t.Errorf("%s: nobody was lied to", lie.name)
			}
		}
		if everybody := c.reader("somebody", server.URL); everybody.Sync(t.Context()) != nil {
			t.Error("others cannot read it")
		}
		return fmt.Sprintf("%d answers of another tree of size %d, 3 ways", told.Load(), cl.Checkpoint().N), "refused each time as forged, and it is said which server did it; read elsewhere"
	})
}

// flood has somebody submit entries of good form in the name of honest keys,
// under a quota of ten a second for each key.
func (c *cluster) flood(run scenario, restart func(t *testing.T, i int, crash, bad string)) {
	run("a flood of well-formed entries with wrong signatures, under a quota", func(t *testing.T) (string, string) {
		for i := range c.srv {
			restart(t, i, "", "quota:10")
		}
		c.healthy()
		var refused, other, honest atomic.Int64
		var slowest atomic.Int64
		signed := c.log.Envelope(ledger.TypeDeployment, c.log.Spec("flood", 1, nil), "author", "security1", "security2")
		var all sync.WaitGroup
		var next atomic.Int64
		for range 4 {
			all.Go(func() {
				for i := next.Add(1); i <= 4000; i = next.Add(1) {
					forged := signed
					forged.Payload = c.log.Spec(fmt.Sprintf("flood-%d", i), 1, nil)
					body, err := forged.Encode()
					if err != nil {
						t.Error(err)
						return
					}
					resp, err := http.Post(c.srv[i%4].url+"/submit", "application/json", strings.NewReader(string(body)))
					if err != nil {
						other.Add(1)
						continue
					}
					answer, _ := io.ReadAll(resp.Body)
					resp.Body.Close()
					if resp.StatusCode != http.StatusConflict || !strings.Contains(string(answer), "signatures") {
						other.Add(1)
						continue
					}
					refused.Add(1)
				}
			})
		}
		done := make(chan struct{})
		go func() { all.Wait(); close(done) }()
		for over := false; !over; {
			select {
			case <-done:
				over = true
			case <-time.After(500 * time.Millisecond): // 2 a second at most, of the 10
			}
			begin, i := time.Now(), int(honest.Load())%4
			entry := c.entry()
			_, err := c.try(i, entry)
			var busy *ledger.Busy
			if errors.As(err, &busy) && busy.Quota {
				t.Fatalf("an honest key pays for the flood: %v", err)
			}
			c.put(i, entry)
			honest.Add(1)
			slowest.Store(max(slowest.Load(), int64(time.Since(begin))))
		}
		if other.Load() > 0 || honest.Load() == 0 {
			t.Errorf("%d were answered otherwise, %d honest entries", other.Load(), honest.Load())
		}
		// And the quota is there: the same keys, with right signatures, too fast.
		var limited atomic.Int64
		for range 60 {
			entry := c.entry()
			all.Go(func() {
				_, err := c.try(0, entry)
				var busy *ledger.Busy
				if errors.As(err, &busy) && busy.Quota {
					limited.Add(1)
				}
			})
		}
		all.Wait()
		if limited.Load() == 0 {
			t.Error("60 entries at once of keys with a burst of 20 met no quota")
		}
		for i := range c.srv {
			restart(t, i, "", "")
		}
		return fmt.Sprintf("%d refused; %d of 60 honest ones at once told to wait", refused.Load(), limited.Load()),
			fmt.Sprintf("%d honest entries of the same keys meanwhile, none over its quota, slowest %s", honest.Load(), time.Duration(slowest.Load()).Round(time.Millisecond))
	})
}
