// SPDX-License-Identifier: Apache-2.0

package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger/bft"
)

func ledgerPeerCommand(a *app) *cobra.Command {
	var listen string
	var remove []string
	cmd := &cobra.Command{
		Use:   "peer DIR [--remove PEER] [VALIDATOR.json|ID@HOST:PORT …]",
		Short: "let other servers of the same ledger connect, and connect to them",
		Long: `Add peers to DIR/mesh.json, or change their addresses. Only peers that stand
there can connect. A running server takes it over within seconds. The server's own
validator.json may be among them: it is skipped, so that every operator can name the
same files.

--remove takes one out again, named by its validator.json, its id or the address that
stands there: a running server ends the connection within seconds and takes it no more.
Do so after zos ledger leave; a validator that is removed before that is missed.

With --listen this server gets an address itself, or another one. It stands in
DIR/validator.json then: the other operators run zos ledger peer with that file, and
this server is started again.

Exit codes: 0 added or removed, 2 wrong arguments, 3 no address, 4 no such file or
peer.`,
		Example: `  zos ledger peer ./ledger validator-1.json validator-2.json validator-3.json validator-4.json
  zos ledger peer ./ledger --remove validator-3.json
  zos ledger peer ./ledger --listen 10.9.0.1:8471`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.ledgerPeer(args[0], args[1:], remove, listen) },
	}
	cmd.Flags().StringArrayVar(&remove, "remove", nil, "validator.json, ID or HOST:PORT of a peer to take out; repeat for each")
	cmd.Flags().StringVar(&listen, "listen", "", "HOST:PORT on the private network, if there is none yet, or it is another one now")
	return cmd
}

func (a *app) ledgerPeer(dir string, peers, remove []string, listen string) error {
	if _, err := os.Stat(filepath.Join(dir, "root.json")); err != nil {
		return fileError(fmt.Errorf("ledger: %w", err))
	}
	m, err := bft.LoadMesh(dir)
	if err != nil {
		return coded(exitRefused, err)
	}
	if listen != "" {
		m.Listen = listen
	}
	addresses := make([]string, len(peers))
	for i, p := range peers {
		if addresses[i], err = peerAddress(p); err != nil {
			return err
		}
	}
	for _, p := range remove {
		if err := removePeer(&m, p); err != nil {
			return err
		}
	}
	id, err := bft.PeerID(dir)
	if err != nil {
		return fileError(err)
	}
	skipped := []string{}
	for i, p := range peers {
		if strings.HasPrefix(addresses[i], id+"@") {
			skipped = append(skipped, p)
			continue
		}
		m.Add(addresses[i])
	}
	m.Remove(id) // which a version of before took
	if m.Listen == "" && len(m.Peers) > 0 {
		return coded(exitRefused, errors.New("this server has no address on the mesh yet: --listen HOST:PORT gives it one (then start it again)"))
	}
	if err := m.Validate(); err != nil {
		return coded(exitUsage, err)
	}
	if err := m.Save(dir); err != nil {
		return err
	}
	if listen != "" {
		if _, err := m.Describe(dir); err != nil {
			return fileError(fmt.Errorf("the address is in mesh.json, but not in what the others are told: %w", err))
		}
	}
	self := ""
	if m.Listen != "" {
		self = id + "@" + m.Listen
	}
	return a.print(struct {
		bft.Mesh
		Self    string   `json:"self"`    // what the others name to reach this one
		Skipped []string `json:"skipped"` // arguments that were this server itself
	}{m, self, skipped}, func(w io.Writer) {
		fmt.Fprintf(w, "listens on %s\n", m.Listen)
		if self != "" {
			fmt.Fprintf(w, "  to the others it is %s\n", self)
		}
		for _, p := range m.Peers {
			fmt.Fprintf(w, "  peer %s\n", p)
		}
		for _, p := range skipped {
			fmt.Fprintf(w, "  skipped %s: it is this server itself\n", p)
		}
		if listen != "" {
			fmt.Fprintf(w, "next: start this server again; give %s to the other operators, who run zos ledger peer DIR validator.json\n", filepath.Join(dir, "validator.json"))
		}
	})
}

// removePeer takes a peer out that is named by its description, its id or the
// address under which it stands there.
func removePeer(m *bft.Mesh, name string) error {
	id := name
	if _, err := os.Stat(name); err == nil {
		d, err := description(name)
		if err != nil {
			return err
		}
		id = d.Peer
	}
	id, _, _ = strings.Cut(id, "@")
	for _, p := range m.Peers {
		if peer, address, _ := strings.Cut(p, "@"); peer == id || address == name {
			m.Remove(peer)
			return nil
		}
	}
	return coded(exitNotFound, fmt.Errorf("--remove %s: no such peer stands in mesh.json, and no such file is there; want the validator.json, ID or HOST:PORT of one of %d: %s", name, len(m.Peers), strings.Join(m.Peers, ", ")))
}

// peerAddress reads a peer from a description, or takes it as it is.
func peerAddress(p string) (string, error) {
	if strings.Contains(p, "@") {
		return p, nil
	}
	d, err := description(p)
	if err != nil {
		return "", err
	}
	if d.Peer == "" {
		return "", coded(exitRefused, fmt.Errorf("%s: has no address on the mesh; zos ledger peer DIR --listen HOST:PORT on that server gives it one and prints what to name here", p))
	}
	return d.Peer, nil
}
