// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	cmtcons "github.com/cometbft/cometbft/proto/tendermint/consensus"
	"github.com/cosmos/gogoproto/proto"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/ledgertest/powercut"
)

// powerOn asks for a server on the disk whose power goes at an fsync, or for
// the end of the one that runs.
type powerOn struct {
	At   int           `json:"at"` // 0 for never
	Loss powercut.Loss `json:"loss"`
	Seed uint64        `json:"seed"`
	Stop bool          `json:"stop"`
}

// powerSays is what became of it: an address, or the end.
type powerSays struct {
	URL   string        `json:"url,omitempty"`
	Ended bool          `json:"ended"`
	Cut   *powercut.Cut `json:"cut"`
	Syncs int           `json:"syncs"`
	Said  string        `json:"said"`  // the end of its log
	Votes int           `json:"votes"` // what it said to others so far, votes and proposals
	Twice []string      `json:"twice"` // what it said in two ways
}

// holdDisk is the process that has the disk: it mounts it over the folder, in
// a mount namespace of its own, and starts the server on it, again and again.
func holdDisk(dir, kind string) error {
	disk, err := powercut.New(dir + "-before")
	if err != nil {
		return err
	}
	disk.Lies = kind == "lies"
	if kind == "loose" {
		disk.Order = powercut.Loose
	}
	say := json.NewEncoder(os.Stdout)
	voted := votes{}
	var cmd *exec.Cmd
	for asked := json.NewDecoder(os.Stdin); ; {
		var on powerOn
		if err := asked.Decode(&on); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return err
		}
		if on.Stop {
			if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
				return err
			}
			continue
		}
		unmount, err := disk.Mount(dir)
		if err != nil {
			return err
		}
		cmd = exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "ZOS_TEST_POWER=")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		said := &strings.Builder{}
		cmd.Stderr = said
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		started := make(chan struct{})
		disk.CutAt(on.At, func() { <-started; _ = cmd.Process.Kill() }) // it may be gone
		if err := cmd.Start(); err != nil {
			return err
		}
		close(started)
		go func(cmd *exec.Cmd) {
			for lines := bufio.NewScanner(out); lines.Scan(); {
				if url := lines.Text(); strings.HasPrefix(url, "http://") {
					_ = say.Encode(powerSays{URL: url})
				} else {
					said.WriteString(url + "\n") // CometBFT's last words
				}
			}
			ended := powerSays{Ended: true}
			if err := cmd.Wait(); err != nil {
				ended.Said = err.Error() + "\n"
			}
			ended.Said += said.String()[max(0, said.Len()-3000):]
			if err := unmount(); err != nil {
				ended.Said += "\nunmount: " + err.Error()
			}
			ended.Syncs = disk.Syncs()
			ended.Cut = disk.Restart(on.Loss, rand.New(rand.NewPCG(on.Seed, 0)))
			ended.Twice = voted.read(disk.Read("comet/data/cs.wal/wal"))
			ended.Votes = len(voted)
			_ = say.Encode(ended) // nobody listens any more
		}(cmd)
	}
}

// powered is a server whose power can go.
type powered struct {
	t     testing.TB
	dir   string // as the server sees it; what it had at first is in dir-before
	ask   *json.Encoder
	said  chan powerSays
	votes int // what it said to others
}

// onPower gives a folder to a disk that forgets. kind is "", "loose" or "lies".
func onPower(t testing.TB, dir, kind string) *powered {
	t.Helper()
	if err := os.Rename(dir, dir+"-before"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &powered{t: t, dir: dir, said: make(chan powerSays, 10)}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), "ZOS_TEST_LEDGER="+dir, "ZOS_TEST_POWER=on "+kind, "ZOS_TEST_CRASH=", "ZOS_TEST_BAD=")
	errs := &strings.Builder{}
	cmd.Stderr = errs
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig: syscall.SIGKILL, Cloneflags: syscall.CLONE_NEWUSER | syscall.CLONE_NEWNS,
		UidMappings: []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}, GidMappings: []syscall.SysProcIDMap{{HostID: os.Getgid(), Size: 1}},
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Skipf("SKIP the disk cannot be made: a namespace of users and mounts is refused: %v", err)
	}
	p.ask = json.NewEncoder(in)
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(p.said)
		for says := json.NewDecoder(out); ; {
			var s powerSays
			if says.Decode(&s) != nil {
				return
			}
			p.said <- s
		}
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // the server has Pdeathsig
		go func() {
			for range p.said {
			}
		}()
		<-read
		if _ = cmd.Wait(); errs.Len() > 0 {
			t.Errorf("the process with the disk: %s", errs)
		}
	})
	return p
}

// hear waits for what the server's process says next.
func (p *powered) hear() powerSays {
	p.t.Helper()
	select {
	case s, ok := <-p.said:
		if !ok {
			p.t.Fatal("the process with the disk is gone")
		}
		p.look(s)
		return s
	case <-time.After(2 * time.Minute):
		p.t.Fatal("waited 2 min for the server to start or to end")
	}
	panic("not reached")
}

// look remembers what the server said to others, and wants it said in one way.
func (p *powered) look(s powerSays) {
	p.votes = max(p.votes, s.Votes)
	if len(s.Twice) > 0 {
		p.t.Errorf("it voted for two blocks in one place: %v", s.Twice)
	}
}

func (p *powered) on(o powerOn) {
	p.t.Helper()
	if err := p.ask.Encode(o); err != nil {
		p.t.Fatal(err)
	}
}

// off ends the server, without a cut.
func (p *powered) off() {
	p.t.Helper()
	for p.on(powerOn{Stop: true}); !p.hear().Ended; {
	}
}

// turn is one start of the server, up to the power cut at its n-th fsync. Once
// it listens, it is looked at, and then entries are submitted to it until the
// power goes or enough of them have a receipt. turn says how many had, and
// what the cut took, nil if it did not come to one.
func (p *powered) turn(o powerOn, enough int, look func(url string), submit func(ctx context.Context, url string) error) (receipts int, cut *powercut.Cut, err error) {
	p.t.Helper()
	p.on(o)
	s := p.hear()
	if url := s.URL; !s.Ended {
		look(url)
		ctx, cancel := context.WithCancel(p.t.Context())
		defer cancel()
		done := make(chan int)
		go func() {
			n := 0
			for n < enough && ctx.Err() == nil {
				if submit(ctx, url) == nil {
					n++
				}
			}
			done <- n
		}()
		select {
		case receipts = <-done:
			p.on(powerOn{Stop: true})
			s = p.hear()
		case <-time.After(3 * time.Minute):
			p.on(powerOn{Stop: true})
			p.t.Fatalf("no receipt in 3 min, and no power cut: %+v", p.hear())
		case s = <-p.said:
			p.look(s)
			cancel()
			receipts = <-done
		}
	}
	if !s.Ended {
		p.t.Fatalf("it says %+v, and does not end", s)
	}
	if s.Cut == nil && receipts < enough {
		err = fmt.Errorf("it ended by itself, after %d fsyncs: %s", s.Syncs, s.Said)
	}
	return receipts, s.Cut, err
}

// votes are what a validator said to others, by place: "2/13/0" is its precommit
// in round 0 of block 13. CometBFT gives a vote or a proposal away when its
// write-ahead log has it, fsynced; so that log knows.
//
// Where a file system loses the rename of the file that remembers what was
// signed (Loose; CometBFT fsyncs the file and not its folder), a restart signs a
// second proposal while it replays the first one. It finds that it has one
// already, and the second one goes nowhere.
type votes map[string]string

// read adds what a write-ahead log has, and says what the validator said in two
// ways.
func (v votes) read(wal []byte) (twice []string) {
	records, _ := cutWAL(wal)
	proposed := map[string]bool{}
	for _, r := range records {
		var m cmtcons.TimedWALMessage
		if err := proto.Unmarshal(r.raw[8:], &m); err != nil {
			return []string{err.Error()}
		}
		sum, ok := m.Msg.Sum.(*cmtcons.WALMessage_MsgInfo)
		if !ok || sum.MsgInfo.PeerID != "" {
			continue
		}
		var place, block string
		switch msg := sum.MsgInfo.Msg.Sum.(type) {
		case *cmtcons.Message_Proposal:
			p := msg.Proposal.Proposal
			place, block = fmt.Sprintf("p/%d/%d", p.Height, p.Round), hex.EncodeToString(p.BlockID.Hash)
			if proposed[place] {
				continue // the first one counts: it has one already and gives this one to nobody
			}
			proposed[place] = true
		case *cmtcons.Message_Vote:
			p := msg.Vote.Vote
			place, block = fmt.Sprintf("%d/%d/%d", p.Type, p.Height, p.Round), hex.EncodeToString(p.BlockID.Hash)
		default:
			continue
		}
		if before, ok := v[place]; ok && before != block {
			twice = append(twice, fmt.Sprintf("%s: %q and %q", place, before, block))
		}
		v[place] = block
	}
	return twice
}

// cuts sums up what power cuts took.
type cuts struct{ turns, writes, names, torn, receipts int }

func (c cuts) String() string {
	return fmt.Sprintf("%d cuts, %d of them torn; they took %d writes and %d names", c.turns, c.torn, c.writes, c.names)
}

func (c *cuts) add(cut *powercut.Cut, l powercut.Loss) {
	c.turns++
	c.writes += cut.Writes
	c.names += cut.Names
	if l != powercut.Dropped {
		c.torn++
	}
}

// holdsAt wants every receipt to hold on a server, and each name to be there once.
func (k *kept) holdsAt(t testing.TB, dir, url string) error {
	c := client(t, dir, url)
	if err := c.Sync(t.Context()); err != nil {
		return fmt.Errorf("the log does not verify: %w", err)
	}
	k.Lock()
	defer k.Unlock()
	for index, entry := range k.entries {
		if got, err := c.Entries().Get(t.Context(), index); err != nil || string(got) != string(entry) {
			return fmt.Errorf("entry %d had a receipt and is not there: %v", index, err)
		}
	}
	seen := map[string]bool{}
	for _, d := range c.State().Deployments() {
		if seen[d.Name] {
			return fmt.Errorf("%s is on the ledger twice", d.Name)
		}
		seen[d.Name] = true
	}
	return nil
}

// alone cuts the power of a ledger of one validator at the fsyncs that next
// names, each time in the middle of what the turn before left.
func alone(t testing.TB, kind string, next func(n int) int, enough int) (sum cuts, lost error) {
	l, dir := fresh(t, lease)
	p := onPower(t, dir, kind)
	k := &kept{entries: map[int64][]byte{}, want: -1}
	made := 0
	entry := l.Register("d0", 1, nil)
	submit := func(ctx context.Context, url string) error {
		r, err := client(t, dir+"-before", url).Submit(ctx, entry)
		var refused *ledger.Refused
		if errors.As(err, &refused) {
			t.Errorf("refused: %v", err)
		}
		if err != nil {
			return err // the next turn submits the same
		}
		if err := k.add(r, entry); err != nil {
			t.Error(err)
		}
		made++
		entry = l.Register("d"+strconv.Itoa(made), 1, nil)
		return nil
	}
	look := func(url string) {
		err := k.holdsAt(t, dir+"-before", url)
		if lost == nil && !errors.Is(err, ledger.ErrUnreachable) { // the power may go just now
			lost = err
		}
	}
	for n := 1; lost == nil; n = next(n) {
		loss := powercut.Loss(sum.turns % 3)
		_, cut, err := p.turn(powerOn{At: n, Loss: loss, Seed: uint64(n)}, enough, look, submit)
		if lost = cmp.Or(lost, err); cut == nil {
			break // it has more than enough receipts without coming to fsync n
		}
		sum.add(cut, loss)
	}
	if lost == nil {
		p.on(powerOn{})
		s := p.hear()
		if s.Ended {
			t.Fatalf("it does not start again: %s", s.Said)
		}
		lost = k.holdsAt(t, dir+"-before", s.URL)
		p.off()
	}
	sum.receipts = len(k.entries)
	if t.Logf("%s; %d votes and proposals", sum, p.votes); p.votes == 0 && kind != "lies" {
		t.Error("nobody saw it vote")
	}
	return sum, lost
}
