// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	"golang.org/x/mod/sumdb/note"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// Description is what a validator tells the others of itself. All of it is
// public: invite puts Validator into the root of trust, and Peer is for the
// mesh files of the other operators.
type Description struct {
	Validator ledger.Validator `json:"validator"`
	Peer      string           `json:"peer"` // id@host:port on the mesh
}

// makeKeys makes the keys of one validator in a ledger's folder, which is
// made too, and writes its description.
func makeKeys(dir, origin string, v ledger.Validator, m Mesh) (Description, error) {
	cfg := settings(dir, m)
	for _, d := range []string{"keys", "log", filepath.Join("comet", "data")} {
		if err := os.MkdirAll(filepath.Join(dir, d), folderMode(d)); err != nil {
			return Description{}, fmt.Errorf("make folder: %w", err)
		}
	}
	logKey, logVKey, err := note.GenerateKey(rand.Reader, origin)
	if err != nil {
		return Description{}, fmt.Errorf("log key: %w", err)
	}
	valKey, valVKey, err := note.GenerateKey(rand.Reader, origin+"/"+v.Name)
	if err != nil {
		return Description{}, fmt.Errorf("validator key: %w", err)
	}
	v.Log = logVKey
	if v.Cosigner, err = tiles.CosignerKey(valVKey); err != nil {
		return Description{}, err
	}
	for name, key := range map[string]string{"log.key": logKey, "validator.key": valKey} {
		if err := tiles.WriteFileSync(filepath.Join(dir, "keys", name), []byte(key+"\n"), 0o600); err != nil {
			return Description{}, err
		}
	}
	pv := privval.NewFilePV(ed25519.GenPrivKey(), cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile())
	pv.Save()
	v.Consensus = base64.StdEncoding.EncodeToString(pv.Key.PubKey.Bytes())
	if err := v.Validate(); err != nil {
		return Description{}, fmt.Errorf("validator: %w", err)
	}
	p2pKey := p2p.NodeKey{PrivKey: ed25519.GenPrivKey()}
	if err := p2pKey.SaveAs(cfg.NodeKeyFile()); err != nil {
		return Description{}, fmt.Errorf("p2p key: %w", err)
	}
	d := Description{Validator: v}
	if m.Listen != "" {
		d.Peer = string(p2pKey.ID()) + "@" + m.Listen
		if err := m.Save(dir); err != nil {
			return d, err
		}
	}
	return d, d.save(dir)
}

// descriptionFile is its name in a ledger's folder.
const descriptionFile = "validator.json"

func (d Description) save(dir string) error {
	b, err := strict.Encode(d)
	if err != nil {
		return fmt.Errorf("describe the validator: %w", err)
	}
	return tiles.WriteFileSync(filepath.Join(dir, descriptionFile), b, 0o644)
}

// ReadDescription reads a validator.json.
func ReadDescription(path string) (Description, error) {
	var d Description
	b, err := os.ReadFile(path)
	if err != nil {
		return d, fmt.Errorf("validator: %w", err)
	}
	if err := strict.Decode(b, &d, ledger.MaxEntry); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	if err := d.Validator.Validate(); err != nil {
		return d, fmt.Errorf("%s: %w", path, err)
	}
	if d.Peer != "" {
		if err := validPeer(d.Peer); err != nil {
			return d, fmt.Errorf("%s: %w", path, err)
		}
	}
	return d, nil
}

// loadKeys reads the keys that sign checkpoints, if nobody else can.
func loadKeys(dir string) (tiles.Signers, error) {
	var keys [2]string
	for i, name := range []string{"log.key", "validator.key"} {
		path := filepath.Join(dir, "keys", name)
		info, err := os.Stat(path)
		if err != nil {
			return tiles.Signers{}, fmt.Errorf("key: %w", err)
		}
		if info.Mode().Perm()&0o077 != 0 {
			return tiles.Signers{}, fmt.Errorf("key %s can be read by others (mode %04o); chmod 600 it", path, info.Mode().Perm())
		}
		b, err := os.ReadFile(path)
		if err != nil {
			return tiles.Signers{}, fmt.Errorf("key: %w", err)
		}
		keys[i] = string(b)
	}
	return tiles.NewSigners(keys[0], keys[1])
}
