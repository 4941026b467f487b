// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	cmttypes "github.com/cometbft/cometbft/types"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// Init makes the folder of a new ledger with one validator, v, of which the
// name and the mirror are given: keys of its own, the root of trust signed by
// the keys of its root role, and a log with that as entry 0. It fills
// root.Version and root.Log but for the origin.
//
//	root.json       the first root of trust, for nodes and readers
//	validator.json  what the other operators need to know of this validator
//	mesh.json       where the validators find each other, if there are others
//	keys/           log.key, validator.key, consensus.json, p2p.json; mode 0600
//	log/            the static files; any web server can carry a copy
//	comet/          CometBFT's blocks
func Init(dir string, root ledger.Root, v ledger.Validator, m Mesh, signers []sign.Signer, now time.Time) (err error) {
	if err := errors.Join(CheckNew(v, m), vacant(dir)); err != nil {
		return err
	}
	defer undo(dir, &err)()
	d, err := makeKeys(dir, root.Log.Origin, v, m)
	if err != nil {
		return err
	}
	root.Version = 1
	root.Log = ledger.LogPolicy{Origin: root.Log.Origin, Validators: []ledger.Validator{d.Validator}, Quorum: 1}
	envelope, err := signRoot(root, signers)
	if err != nil {
		return err
	}
	leaves, err := ledger.Genesis(envelope, now.UnixMilli())
	if err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	if err := writeGenesis(dir, envelope, now.UnixMilli()); err != nil {
		return err
	}
	s, err := loadKeys(dir)
	if err != nil {
		return err
	}
	w := tiles.NewWriter(LogDir(dir))
	if err := w.WriteRoot(1, envelope); err != nil {
		return err
	}
	if err := w.Append(leaves); err != nil {
		return err
	}
	signed, err := s.Sign(root.Log.Origin, w.Head())
	if err != nil {
		return err
	}
	if err := w.Publish(w.Head().N, signed); err != nil {
		return err
	}
	// Last: a folder with a root.json is a whole ledger.
	return tiles.WriteFileSync(filepath.Join(dir, "root.json"), envelope, 0o644)
}

// CheckNew refuses a name, a mirror and a mesh with which no server can be made,
// before anything is.
func CheckNew(v ledger.Validator, m Mesh) error {
	v.Consensus = base64.StdEncoding.EncodeToString(make([]byte, ed25519.PubKeySize)) // which is made later
	if err := v.Validate(); err != nil {
		return fmt.Errorf("validator: %w", err)
	}
	if err := m.Validate(); err != nil {
		return err
	}
	if m.Listen == "" {
		return nil
	}
	host, _, err := net.SplitHostPort(m.Listen)
	if ip := net.ParseIP(host); err != nil || host == "" || ip != nil && ip.IsUnspecified() {
		return fmt.Errorf("mesh: listens on %q, want the address at which the other validators reach it, such as 10.9.0.1:8471", m.Listen)
	}
	return nil
}

// undo takes away what a try left in a folder that was vacant, so that the next
// one finds it as it was.
func undo(dir string, failed *error) func() {
	_, absent := os.Stat(dir)
	return func() {
		if *failed == nil {
			return
		}
		if absent != nil {
			*failed = errors.Join(*failed, os.RemoveAll(dir))
			return
		}
		list, err := os.ReadDir(dir)
		*failed = errors.Join(*failed, err)
		for _, f := range list {
			*failed = errors.Join(*failed, os.RemoveAll(filepath.Join(dir, f.Name())))
		}
	}
}

// vacant says whether a ledger can be made in a folder.
func vacant(dir string) error {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("%s is not empty; a ledger is made once, in a folder of its own", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	return nil
}

// writeGenesis writes what CometBFT begins with. It follows from the first
// entries of the log alone, so whoever joins makes the same.
func writeGenesis(dir string, envelope []byte, timeMs int64) error {
	root, _, err := ledger.DecodeRoot(envelope)
	if err != nil {
		return err
	}
	genesis := cmttypes.GenesisDoc{ChainID: chainID(envelope), GenesisTime: time.UnixMilli(timeMs).UTC()}
	for _, v := range root.Log.Validators {
		key, err := base64.StdEncoding.DecodeString(v.Consensus)
		if err != nil {
			return fmt.Errorf("consensus key of %s: %w", v.Name, err)
		}
		genesis.Validators = append(genesis.Validators, cmttypes.GenesisValidator{PubKey: ed25519.PubKey(key), Power: 1, Name: v.Name})
	}
	if err := genesis.ValidateAndComplete(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if err := genesis.SaveAs(settings(dir, Mesh{}).GenesisFile()); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	return nil
}

// chainID is CometBFT's name of the chain that begins with a root of trust.
func chainID(envelope []byte) string {
	sum := sha256.Sum256(envelope)
	return "zos-" + hex.EncodeToString(sum[:16])
}

// Join makes the folder of a server that follows an existing ledger and can
// become one of its validators: keys of its own, and the beginning of the log.
// c has just been synchronised, so what it has is proven. The blocks come from
// the peers of m, and every entry is applied again, from the first one; with
// snapshot, from the newest snapshot of a server, which the peers' checkpoint and
// votes prove.
func Join(ctx context.Context, dir string, c *ledger.Client, v ledger.Validator, m Mesh, snapshot bool) (d Description, err error) {
	if err := errors.Join(CheckNew(v, m), vacant(dir)); err != nil {
		return Description{}, err
	}
	if m.Listen == "" || len(m.Peers) == 0 {
		return Description{}, errors.New("whoever joins needs an address on the mesh and a peer there")
	}
	envelope, err := c.Entries().Get(ctx, 0)
	if err != nil {
		return Description{}, err
	}
	raw, err := c.Entries().Get(ctx, 1)
	if err != nil {
		return Description{}, err
	}
	e, err := ledger.Decode(raw)
	if err != nil {
		return Description{}, err
	}
	first, ok := e.Payload.(*ledger.Block)
	if !ok {
		return Description{}, fmt.Errorf("entry 1 is a %s, want the first block", e.Type)
	}
	defer undo(dir, &err)()
	if d, err = makeKeys(dir, c.State().Root().Log.Origin, v, m); err != nil {
		return d, err
	}
	if err := writeGenesis(dir, envelope, first.TimeMs); err != nil {
		return d, err
	}
	if snapshot {
		if err := seed(ctx, c, dir, envelope, false); err != nil {
			return d, err
		}
	}
	return d, tiles.WriteFileSync(filepath.Join(dir, "root.json"), envelope, 0o644)
}

// beginning folds the first entries of a log of which nothing is on the disk
// yet, and writes them.
func beginning(dir string, envelope []byte, w *tiles.Writer) (*ledger.State, error) {
	genesis, err := cmttypes.GenesisDocFromFile(settings(dir, Mesh{}).GenesisFile())
	if err != nil {
		return nil, fmt.Errorf("genesis: %w", err)
	}
	state := ledger.NewState()
	out := state.Apply(0, genesis.GenesisTime.UnixMilli(), [][]byte{envelope})
	if err := out.Refused[0]; err != nil {
		return nil, fmt.Errorf("root of trust: %w", err)
	}
	if err := w.Append(out.Leaves); err != nil {
		return nil, err
	}
	return state, w.WriteRoot(1, envelope)
}

func folderMode(name string) fs.FileMode {
	if name == "log" {
		return 0o755
	}
	return 0o700
}

func signRoot(root ledger.Root, signers []sign.Signer) ([]byte, error) {
	if err := root.Validate(); err != nil {
		return nil, fmt.Errorf("root of trust: %w", err)
	}
	body, err := strict.Encode(root)
	if err != nil {
		return nil, fmt.Errorf("root of trust: %w", err)
	}
	env := sign.Envelope{PayloadType: ledger.TypeRoot, Payload: body}
	for _, s := range signers {
		if err := env.Add(s); err != nil {
			return nil, fmt.Errorf("sign the root of trust: %w", err)
		}
	}
	return env.Encode()
}
