// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cometbft/cometbft/crypto/ed25519"
	"github.com/cometbft/cometbft/p2p"
	"github.com/cometbft/cometbft/privval"
	cmttypes "github.com/cometbft/cometbft/types"
	"golang.org/x/mod/sumdb/note"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// Init makes the folder of a new ledger: keys of its own, the root of trust
// signed by the keys of its root role, and a log with that as entry 0. It
// fills root.Version and root.Log but for the origin.
//
//	root.json   the root of trust, for nodes and readers
//	keys/       log.key, validator.key, consensus.json, p2p.json; mode 0600
//	log/        the static files; any web server can carry a copy
//	comet/      CometBFT's blocks
func Init(dir string, root ledger.Root, signers []sign.Signer, now time.Time) error {
	if list, err := os.ReadDir(dir); err == nil && len(list) > 0 {
		return fmt.Errorf("%s is not empty; a ledger is made once, in a folder of its own", dir)
	} else if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("look at %s: %w", dir, err)
	}
	logKey, logVKey, err := note.GenerateKey(rand.Reader, root.Log.Origin)
	if err != nil {
		return fmt.Errorf("log key: %w", err)
	}
	valKey, valVKey, err := note.GenerateKey(rand.Reader, root.Log.Origin+"/validator-1")
	if err != nil {
		return fmt.Errorf("validator key: %w", err)
	}
	cosigner, err := tiles.CosignerKey(valVKey)
	if err != nil {
		return err
	}
	root.Version = 1
	root.Log = ledger.LogPolicy{Origin: root.Log.Origin, Key: logVKey, Cosigners: []string{cosigner}, Quorum: 1}
	envelope, err := signRoot(root, signers)
	if err != nil {
		return err
	}
	leaves, err := ledger.Genesis(envelope, now.UnixMilli())
	if err != nil {
		return fmt.Errorf("root of trust: %w", err)
	}
	cfg := settings(dir)
	for _, d := range []string{"keys", "log", filepath.Join("comet", "data")} {
		if err := os.MkdirAll(filepath.Join(dir, d), folderMode(d)); err != nil {
			return fmt.Errorf("make folder: %w", err)
		}
	}
	for name, key := range map[string]string{"log.key": logKey, "validator.key": valKey} {
		if err := tiles.WriteFileSync(filepath.Join(dir, "keys", name), []byte(key+"\n"), 0o600); err != nil {
			return err
		}
	}
	pv := privval.NewFilePV(ed25519.GenPrivKey(), cfg.PrivValidatorKeyFile(), cfg.PrivValidatorStateFile())
	pv.Save()
	if err := (&p2p.NodeKey{PrivKey: ed25519.GenPrivKey()}).SaveAs(cfg.NodeKeyFile()); err != nil {
		return fmt.Errorf("p2p key: %w", err)
	}
	chain := sha256.Sum256(envelope)
	genesis := cmttypes.GenesisDoc{
		ChainID: "zos-" + hex.EncodeToString(chain[:16]), GenesisTime: now,
		Validators: []cmttypes.GenesisValidator{{PubKey: pv.Key.PubKey, Power: 1}},
	}
	if err := genesis.ValidateAndComplete(); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	if err := genesis.SaveAs(cfg.GenesisFile()); err != nil {
		return fmt.Errorf("genesis: %w", err)
	}
	s, err := loadKeys(dir)
	if err != nil {
		return err
	}
	w := tiles.NewWriter(LogDir(dir), root.Log.Origin, s)
	if err := w.WriteRoot(1, envelope); err != nil {
		return err
	}
	if err := w.Append(leaves); err != nil {
		return err
	}
	if _, err := w.Publish(); err != nil {
		return err
	}
	// Last: a folder with a root.json is a whole ledger.
	return tiles.WriteFileSync(filepath.Join(dir, "root.json"), envelope, 0o644)
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
