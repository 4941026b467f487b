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
	cmd := &cobra.Command{
		Use:   "peer DIR VALIDATOR.json|ID@HOST:PORT …",
		Short: "let other servers of the same ledger connect, and connect to them",
		Long: `Add peers to DIR/mesh.json, or change their addresses. Only peers that stand
there can connect. A running server takes it over within seconds. The server's own
validator.json may be among them: it is skipped, so that every operator can name the
same files.

With --listen this server gets an address itself, or another one. It stands in
DIR/validator.json then: the other operators run zos ledger peer with that file, and
this server is started again.

Exit codes: 0 added, 2 wrong arguments, 3 no address, 4 no such file.`,
		Example: `  zos ledger peer ./ledger validator-1.json validator-2.json validator-3.json validator-4.json
  zos ledger peer ./ledger --listen 10.9.0.1:8471`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error { return a.ledgerPeer(args[0], args[1:], listen) },
	}
	cmd.Flags().StringVar(&listen, "listen", "", "HOST:PORT on the private network, if there is none yet, or it is another one now")
	return cmd
}

func (a *app) ledgerPeer(dir string, peers []string, listen string) error {
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
