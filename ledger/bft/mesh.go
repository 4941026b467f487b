// SPDX-License-Identifier: Apache-2.0

package bft

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cometbft/cometbft/p2p"

	"github.com/zos-node/zos/ledger/tiles"
	"github.com/zos-node/zos/spec/strict"
)

// Mesh is the private network of the validators, as one of them knows it. It
// is a matter of the operators (addresses change, roots of trust should not),
// and it is kept in mesh.json, which a running server reads again when it
// changes. Nobody else than Peers may connect; there is no discovery. The
// zero Mesh is that of a single validator, to which nobody can connect.
type Mesh struct {
	Listen string   `json:"listen"` // host:port, on the private network
	Peers  []string `json:"peers"`  // id@host:port of every other validator
}

func meshFile(dir string) string { return filepath.Join(dir, "mesh.json") }

// LoadMesh reads the mesh of a ledger's folder.
func LoadMesh(dir string) (Mesh, error) {
	var m Mesh
	b, err := os.ReadFile(meshFile(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return m, nil
	} else if err != nil {
		return m, fmt.Errorf("mesh: %w", err)
	}
	if err := strict.Decode(b, &m, 64<<10); err != nil {
		return m, fmt.Errorf("%s: %w", meshFile(dir), err)
	}
	return m, m.Validate()
}

// Save writes the mesh of a ledger's folder.
func (m Mesh) Save(dir string) error {
	if err := m.Validate(); err != nil {
		return err
	}
	if m.Peers == nil {
		m.Peers = []string{}
	}
	b, err := strict.Encode(m)
	if err != nil {
		return fmt.Errorf("mesh: %w", err)
	}
	return tiles.WriteFileSync(meshFile(dir), b, 0o644)
}

// Describe writes the mesh's address into the description that the other
// operators have of a folder's server, and returns that.
func (m Mesh) Describe(dir string) (Description, error) {
	d, err := ReadDescription(filepath.Join(dir, descriptionFile))
	if err != nil {
		return d, err
	}
	key, err := p2p.LoadNodeKey(settings(dir, m).NodeKeyFile())
	if err != nil {
		return d, fmt.Errorf("p2p key: %w", err)
	}
	d.Peer = string(key.ID()) + "@" + m.Listen
	if err := validPeer(d.Peer); err != nil {
		return d, err
	}
	return d, d.save(dir)
}

// Validate checks addresses and ids.
func (m Mesh) Validate() error {
	if m.Listen == "" && len(m.Peers) > 0 {
		return errors.New("mesh: has peers, but no address to listen on")
	}
	if m.Listen != "" {
		_, port, err := net.SplitHostPort(m.Listen)
		if n, wrong := strconv.ParseUint(port, 10, 16); err != nil || wrong != nil || n == 0 {
			return fmt.Errorf("mesh: listens on %q, want host:port on the private network, with a port from 1 to 65535", m.Listen)
		}
	}
	for _, p := range m.Peers {
		if err := validPeer(p); err != nil {
			return err
		}
	}
	return nil
}

func validPeer(p string) error {
	if _, err := p2p.NewNetAddressString(p); err != nil {
		return fmt.Errorf("mesh: peer %q, want id@host:port as in the other's validator.json: %w", p, err)
	}
	return nil
}

// PeerID is the id under which a ledger folder's server is known on the mesh.
func PeerID(dir string) (string, error) {
	key, err := p2p.LoadNodeKey(settings(dir, Mesh{}).NodeKeyFile())
	if err != nil {
		return "", fmt.Errorf("p2p key: %w", err)
	}
	return string(key.ID()), nil
}

// Add takes a peer in, in place of an older address of the same one.
func (m *Mesh) Add(peer string) {
	id, _, _ := strings.Cut(peer, "@")
	m.Remove(id)
	m.Peers = append(m.Peers, peer)
}

// Remove takes a peer out, if it is there.
func (m *Mesh) Remove(id string) {
	m.Peers = slices.DeleteFunc(m.Peers, func(p string) bool { return strings.HasPrefix(p, id+"@") })
}

// knows says whether an id may connect.
func (m Mesh) knows(id string) bool {
	return slices.ContainsFunc(m.Peers, func(p string) bool { return strings.HasPrefix(p, id+"@") })
}
