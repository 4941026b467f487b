// SPDX-License-Identifier: Apache-2.0

// Package state keeps what a node must not lose over a reboot (its key, the
// newest checkpoint that it believed, the time) on a partition of its own disk,
// encrypted, with the key sealed to the TPM and to the maker of the image
// (agent/seal). A node without a disk keeps it in memory: the next boot is
// another node.
//
//	first boot    the partition is zeros: a volume is made, its key sealed, and a
//	              recovery key encrypted to the operators that the seed names
//	later         unsealed; the same node goes on, also under the next image of
//	              the same maker
//	locked        another maker's image, another TPM, a cleared one: nothing is
//	              made anew and nothing is guessed; the console says what is wrong
//	              and the node waits for a medium with the recovery key
//	no TPM        the key stands in the header, beside what it encrypts: the node
//	              works, and says that whoever has the disk has its key
//
// The header is LUKS2 (agent/luks), so cryptsetup opens it with the recovery key.
package state

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"filippo.io/age"
	"github.com/google/renameio/v2"

	"github.com/zos-node/zos/agent/luks"
	"github.com/zos-node/zos/agent/pcrsig"
	"github.com/zos-node/zos/agent/recovery"
	"github.com/zos-node/zos/agent/seal"
	"github.com/zos-node/zos/agent/wait"
)

// RecoveryPath is the recovery key's on a FAT medium that is plugged into a
// node whose state is locked.
const RecoveryPath = "zos/recovery.key"

// Config is what a State needs.
type Config struct {
	Sys, Dev   string // /sys/class/block and /dev
	Extra      string // what systemd's stub left: pcrsig.Dir
	TPM        string // seal.Device
	RunDir     string // in memory
	Recipients []age.Recipient
	// Modules loads the drivers that an encrypted disk needs; nothing does where
	// there is none.
	Modules func() error
	// Booted says whether this boot came from a partition, so that its disk must
	// show up. It may wait for drivers.
	Booted func(context.Context) (bool, error)
	// Medium looks for a file on every medium; fs.ErrNotExist when none has it.
	Medium func(path string) (content []byte, from string, err error)
	// Locked hears why the state does not open, before the wait for a recovery
	// key. It must not block.
	Locked func(why error)
	Log    *slog.Logger
	every  time.Duration // between two looks at media
}

// State is where a node keeps what has to last.
type State struct {
	Dir   string   `json:"dir"`
	Kind  Kind     `json:"kind"`
	Lacks []string `json:"lacks"` // what it cannot promise, for people
	// Maker is the fingerprint of the key that images have to be signed by
	// (pcrsig.Signed) for the state to open; "" where it is not sealed.
	Maker string `json:"maker"`
}

const (
	diskWait      = 15 * time.Second
	poll          = 200 * time.Millisecond
	recoveryEvery = 2 * time.Second
)

// Dir is where the partition is mounted.
func (c Config) dir() string { return filepath.Join(c.RunDir, "kept") }

// Open finds the state, makes it, or waits for what opens it. It blocks for as
// long as it is locked.
func Open(ctx context.Context, c Config) (*State, error) {
	there, err := mounted(c.dir())
	if err != nil {
		return nil, err
	}
	if there {
		return c.again()
	}
	p, err := c.partition(ctx)
	if err != nil {
		return nil, err
	}
	if p == nil {
		return c.inMemory()
	}
	f, err := os.OpenFile(p.device, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("state partition: %w", err)
	}
	defer f.Close()
	guard, done := c.guard()
	defer done()
	if c.Modules != nil {
		if err := c.Modules(); err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
	}
	h, err := luks.Read(f)
	if errors.Is(err, luks.ErrNone) {
		return c.first(f, p, guard)
	}
	if err != nil {
		return nil, fmt.Errorf("state partition %s: %w. Nothing is written over it: wipe it by hand if nothing on it is wanted", p.device, err)
	}
	key, kind, err := guard.open(f, h)
	if errors.Is(err, errLocked) {
		key, kind, err = c.locked(ctx, f, h.Token(tokenRecovery) != nil, guard, err)
	}
	if err != nil {
		return nil, fmt.Errorf("state partition %s: %w", p.device, err)
	}
	defer clear(key)
	device, err := decrypt(c.Dev, p, key)
	if err != nil {
		return nil, err
	}
	if err := mount(device, c.dir()); err != nil {
		return nil, err
	}
	if h, err = luks.Read(f); err != nil { // a recovery has changed it
		return nil, fmt.Errorf("state partition %s: %w", p.device, err)
	}
	return c.opened(kind, h, "the node's state is open", guard)
}

// partition waits for the disk that the node was started from.
func (c Config) partition(ctx context.Context) (*partition, error) {
	p, err := find(c.Sys, c.Dev)
	if err != nil || p != nil {
		return p, err
	}
	must, err := c.Booted(ctx)
	if err != nil || !must {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, diskWait)
	defer cancel()
	err = wait.Until(ctx, c.Log, "the boot disk's state partition", PartitionName, poll, func() (bool, error) {
		p, err = find(c.Sys, c.Dev)
		return p != nil, err
	})
	if errors.Is(err, context.DeadlineExceeded) {
		return nil, nil // a medium without one
	}
	return p, err
}

func (c Config) inMemory() (*State, error) {
	dir := filepath.Join(c.RunDir, "state")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	s := &State{Dir: dir, Kind: Memory, Lacks: []string{"no state partition: the node's key is in memory, and the next boot is another node"}}
	c.Log.Info("state", "key", s.Kind, "lacks", s.Lacks[0])
	return s, nil
}

// guard looks at TPM and image.
func (c Config) guard() (Guard, func()) {
	none := func() {}
	tpm, done, err := seal.Open(c.TPM)
	if err != nil {
		return Guard{Why: err}, none
	}
	end := func() {
		if err := done(); err != nil {
			c.Log.Warn("TPM", "err", err)
		}
	}
	g := Guard{TPM: tpm}
	r, err := tpm.Register()
	if err == nil {
		g.Signed, err = pcrsig.Load(c.Extra)
	}
	if err == nil {
		_, err = g.Signed.For(r)
	}
	g.Why = err
	return g, end
}

// first makes the state. The header comes last: whatever is cut before is a
// first boot again.
func (c Config) first(f *os.File, p *partition, guard Guard) (*State, error) {
	h, key, kind, err := guard.make(f, c.Recipients)
	if err != nil {
		return nil, fmt.Errorf("make the state: %w", err)
	}
	defer clear(key)
	device, err := decrypt(c.Dev, p, key)
	if err != nil {
		return nil, err
	}
	if err := makeFS(device, c.RunDir, int64(sectors(p.size))*sectorSize); err != nil {
		return nil, err
	}
	if err := h.Commit(f); err != nil {
		return nil, fmt.Errorf("make the state: %w", err)
	}
	if err := mount(device, c.dir()); err != nil {
		return nil, err
	}
	return c.opened(kind, h, "the node's state was made", guard)
}

// factsPath is where an agent tells the next one of the same boot.
func (c Config) factsPath() string { return filepath.Join(c.RunDir, "state", "kept.json") }

// again is a later agent of the same boot: what the first one found stands.
func (c Config) again() (*State, error) {
	b, err := os.ReadFile(c.factsPath())
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	var s State
	if err := json.Unmarshal(b, &s); err != nil {
		return nil, fmt.Errorf("state: %s: %w", c.factsPath(), err)
	}
	return &s, nil
}

// opened says what there is, and what it cannot promise.
func (c Config) opened(kind Kind, h *luks.Header, what string, guard Guard) (*State, error) {
	s := &State{Dir: c.dir(), Kind: kind, Lacks: lacks(kind, h, guard)}
	if kind == Sealed {
		b, err := blob(h)
		if err != nil {
			return nil, fmt.Errorf("state: %w", err)
		}
		s.Maker = b.Maker
	}
	recoverable := h.Token(tokenRecovery) != nil
	c.Log.Info(what, "key", s.Kind, "volume", h.UUID, "recovery", recoverable)
	for _, l := range s.Lacks {
		c.Log.Warn("this node cannot promise all", "lacks", l)
	}
	b, err := json.Marshal(s)
	if err == nil {
		err = renameio.WriteFile(c.factsPath(), b, 0o600)
	}
	if err != nil {
		return nil, fmt.Errorf("state: %w", err)
	}
	return s, nil
}

func lacks(kind Kind, h *luks.Header, guard Guard) []string {
	out := []string{}
	switch kind {
	case Clear:
		out = append(out, "the node's key is not sealed: whoever has the disk can read it")
	case Recovery:
		out = append(out, "the state was opened by its recovery key and is not sealed to this machine")
	}
	if guard.Why != nil && kind != Sealed {
		out = append(out, "nothing can be sealed here: "+guard.Why.Error())
	}
	if h.Token(tokenRecovery) == nil {
		out = append(out, "there is no recovery key: what is sealed is lost with this TPM; name an operator's key in the seed before a node's first boot")
	}
	return out
}

// todo says what an operator can do about a locked state.
const todo = "boot an image of the same maker on the machine that it was sealed on; or plug in a FAT medium with the recovery key in " + RecoveryPath +
	" (docs/boot.md, Recovery); or wipe the partition, and the node is a new one"

// locked waits for a recovery key.
func (c Config) locked(ctx context.Context, f *os.File, recoverable bool, guard Guard, why error) (key []byte, kind Kind, err error) {
	c.Log.Error("THE NODE'S STATE IS LOCKED", "err", why, "recovery", recoverable, "do", todo)
	if c.Locked != nil {
		c.Locked(why)
	}
	said := ""
	err = wait.Until(ctx, c.Log, "the recovery key", RecoveryPath+" on a FAT medium", cmp.Or(c.every, recoveryEvery), func() (bool, error) {
		b, from, err := c.Medium(RecoveryPath)
		if errors.Is(err, fs.ErrNotExist) {
			said = ""
			return false, nil
		}
		if err == nil {
			var text string
			if text, err = recovery.Parse(b); err == nil {
				key, kind, err = guard.recover(f, text)
			}
			clear(b)
		}
		if err == nil {
			c.Log.Warn("the recovery key opened the state; take the medium out and destroy the key on it", "from", from, "key", kind)
			return true, nil
		}
		// A wrong key on one medium is no reason not to look at the next.
		if err.Error() != said {
			said = err.Error()
			c.Log.Error("the recovery key does not open the state", "from", from, "err", err)
		}
		return false, nil
	})
	return key, kind, err
}
