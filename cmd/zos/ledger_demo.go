// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/ledger/bft"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// demoOptions are the flags of zos ledger demo.
type demoOptions struct {
	validators int
	dir        string
	port       int
}

func ledgerDemoCommand(a *app) *cobra.Command {
	var o demoOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "run a whole ledger on loopback, each validator a process of its own",
		Long: `Make keys and a ledger, run its validators as processes on loopback, and print
their addresses. With a folder it stays there and goes on the next time; else
all of it is removed at the end. Ctrl-C ends it. For trying things out: one
machine that has all keys is nobody's distributed ledger.

Exit codes: 0 ended when asked, 1 a validator could not go on.`,
		Example: `  zos ledger demo
  zos ledger demo --validators 4 --dir ./demo`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return a.ledgerDemo(cmd.Context(), o) },
	}
	cmd.Flags().IntVar(&o.validators, "validators", 1, "how many validators")
	cmd.Flags().StringVar(&o.dir, "dir", "", "folder to keep keys and ledgers in")
	cmd.Flags().IntVar(&o.port, "port", 8470, "port of the first validator, the others follow; 0 takes free ones")
	return cmd
}

func (a *app) ledgerDemo(ctx context.Context, o demoOptions) (err error) {
	if o.validators < 1 || o.validators > 16 {
		return coded(exitUsage, fmt.Errorf("--validators is %d, want 1 to 16", o.validators))
	}
	if o.port < 0 || o.port > 65536-o.validators {
		return coded(exitUsage, fmt.Errorf("--port is %d, want 0 for free ones, or at most %d for %d validators", o.port, 65536-o.validators, o.validators))
	}
	// Before anything is made: the way that this fails most often.
	for i := range o.validators {
		if err := demoPort(o, i); err != nil {
			return err
		}
	}
	if o.dir == "" {
		if o.dir, err = os.MkdirTemp("", "zos-ledger-"); err != nil {
			return fmt.Errorf("make a folder: %w", err)
		}
		defer func() { err = errors.Join(err, os.RemoveAll(o.dir)) }()
	}
	root, err := demoKey(o.dir, "root")
	if err != nil {
		return err
	}
	if err := demoLedger(ctx, o, root); err != nil {
		return err
	}
	var all []*demoServer
	defer func() {
		for _, s := range all {
			err = errors.Join(err, s.end())
		}
	}()
	gone := make(chan *demoServer, o.validators)
	for i := 1; i <= o.validators; i++ {
		port := 0
		if o.port > 0 {
			port = o.port + i - 1
		}
		s, err := a.demoServe(ctx, demoDir(o.dir, i), port, gone)
		if err != nil {
			// Somebody took the port meanwhile: that says more.
			return cmp.Or(demoPort(o, i-1), err)
		}
		all = append(all, s)
	}
	if err := a.demoInvite(ctx, o, all, root); err != nil {
		return err
	}
	shown := struct {
		Root    string   `json:"root"`
		Keys    string   `json:"keys"`
		Ledgers []string `json:"ledgers"`
	}{Root: filepath.Join(demoDir(o.dir, 1), "root.json"), Keys: filepath.Join(o.dir, "keys")}
	for _, s := range all {
		shown.Ledgers = append(shown.Ledgers, s.url)
	}
	if err := a.print(shown, func(w io.Writer) {
		fmt.Fprintf(w, "ledger ready: %d validators, %d of them needed\n", o.validators, ledger.QuorumOf(o.validators))
		for i, url := range shown.Ledgers {
			fmt.Fprintf(w, "  validator-%d %s (process %d)\n", i+1, url, all[i].cmd.Process.Pid)
		}
		fmt.Fprintf(w, "  trust root  %s\n  keys        %s\n", shown.Root, shown.Keys)
		fmt.Fprintf(w, "try: zos ledger verify %s --root %s\n", shown.Ledgers[0], shown.Root)
	}); err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case s := <-gone:
			fmt.Fprintf(a.err, "validator %s has ended: %v\n", s.dir, s.err)
			if s.left = true; o.validators == 1 {
				return fmt.Errorf("the only validator has ended: %w", s.err)
			}
		}
	}
}

// demoPort refuses a port that is taken; a validator would, in words of its own
// flags.
func demoPort(o demoOptions, i int) error {
	if o.port == 0 {
		return nil
	}
	address := net.JoinHostPort("127.0.0.1", strconv.Itoa(o.port+i))
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("validator-%d needs %s, which is not free (is another ledger running?): --port takes another first port, --port 0 free ones: %w", i+1, address, err)
	}
	if err := l.Close(); err != nil {
		return fmt.Errorf("find a port: %w", err)
	}
	return nil
}

func demoDir(dir string, i int) string { return filepath.Join(dir, "validator-"+strconv.Itoa(i)) }

// demoKey makes a key or takes the one of last time.
func demoKey(dir, name string) (sign.Signer, error) {
	path := filepath.Join(dir, "keys", name)
	if _, err := os.Stat(path); err == nil {
		return sign.LoadSigner(path, nil)
	}
	s, text, err := sign.GenerateSigner()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make folder: %w", err)
	}
	if err := os.WriteFile(path+".pub", []byte(s.PublicKey()+"\n"), 0o644); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	if err := writeSecret(path, text); err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return s, nil
}

// demoLedger makes the folders that are not there yet.
func demoLedger(ctx context.Context, o demoOptions, rootKey sign.Signer) error {
	var made []bft.Description
	for i := 1; i <= o.validators; i++ {
		dir := demoDir(o.dir, i)
		path := filepath.Join(dir, "validator.json")
		if _, err := os.Stat(path); err != nil {
			if err := demoFolder(ctx, o.dir, i, made, rootKey); err != nil {
				return err
			}
		}
		d, err := bft.ReadDescription(path)
		if err != nil {
			return err
		}
		made = append(made, d)
	}
	for i := range made {
		m, err := bft.LoadMesh(demoDir(o.dir, i+1))
		if err != nil {
			return err
		}
		for j, d := range made {
			if i != j {
				m.Add(d.Peer)
			}
		}
		if err := m.Save(demoDir(o.dir, i+1)); err != nil {
			return err
		}
	}
	return nil
}

func demoFolder(ctx context.Context, dir string, i int, made []bft.Description, rootKey sign.Signer) error {
	mesh, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("find a port: %w", err)
	}
	m := bft.Mesh{Listen: mesh.Addr().String()}
	if err := mesh.Close(); err != nil {
		return fmt.Errorf("find a port: %w", err)
	}
	v := ledger.Validator{Name: "validator-" + strconv.Itoa(i)}
	if i == 1 {
		root, err := demoPolicy(dir, rootKey)
		if err != nil {
			return err
		}
		return bft.Init(demoDir(dir, 1), root, v, m, []sign.Signer{rootKey}, time.Now())
	}
	for _, d := range made {
		m.Add(d.Peer)
	}
	envelope, err := readFile(filepath.Join(demoDir(dir, 1), "root.json"), "a trust root", ledger.MaxEntry+1)
	if err != nil {
		return fmt.Errorf("trust root: %w", err)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: envelope, Ledgers: []string{demoDir(dir, 1)}, KeepEntries: true})
	if err != nil {
		return err
	}
	if err := c.Sync(ctx); err != nil {
		return err
	}
	_, err = bft.Join(ctx, demoDir(dir, i), c, v, m, false)
	return err
}

// demoPolicy is the policy of examples/shop, with keys made on the spot, and one
// who releases node images.
func demoPolicy(dir string, rootKey sign.Signer) (ledger.Root, error) {
	role := func(threshold int64, names ...string) (r sign.Role, err error) {
		r.Threshold = threshold
		for _, n := range names {
			s, err := demoKey(dir, n)
			if err != nil {
				return r, err
			}
			r.Keys = append(r.Keys, s.PublicKey())
		}
		return r, nil
	}
	roles := map[string]sign.Role{"root": {Threshold: 1, Keys: []string{rootKey.PublicKey()}}}
	for name, of := range map[string][]string{"author": {"author"}, "security": {"security1", "security2"}, "operator": {"operator"}, "release": {"release"}} {
		r, err := role(int64(len(of)), of...)
		if err != nil {
			return ledger.Root{}, err
		}
		roles[name] = r
	}
	return ledger.Root{
		Log: ledger.LogPolicy{Origin: "zos.example/demo"}, Policy: sign.Policy{Roles: roles},
		Require: map[string][]string{"root": {"root"}, "deployment": {"author", "security"}, "stop": {"author"}, "voucher": {"operator"}, "release": {"release"}},
		Lease:   ledger.LeasePolicy{WindowMs: 10_000, LeaseMs: 600_000, GraceMs: 120_000},
	}, nil
}

// demoInvite makes all servers validators, if they are not.
func (a *app) demoInvite(ctx context.Context, o demoOptions, all []*demoServer, rootKey sign.Signer) error {
	envelope, err := readFile(filepath.Join(demoDir(o.dir, 1), "root.json"), "a trust root", ledger.MaxEntry+1)
	if err != nil {
		return fmt.Errorf("trust root: %w", err)
	}
	var urls []string
	for _, s := range all {
		urls = append(urls, s.url)
	}
	c, err := ledger.OpenClient(ledger.ClientConfig{Root: envelope, Ledgers: urls})
	if err != nil {
		return err
	}
	if err := c.Sync(ctx); err != nil {
		return err
	}
	root := *c.State().Root()
	if len(root.Log.Validators) >= o.validators {
		return nil
	}
	root.Version++
	root.Log.Validators = nil
	for i := range all {
		d, err := bft.ReadDescription(filepath.Join(demoDir(o.dir, i+1), "validator.json"))
		if err != nil {
			return err
		}
		root.Log.Validators = append(root.Log.Validators, d.Validator)
	}
	root.Log.Quorum = ledger.QuorumOf(o.validators)
	body, err := strict.Encode(root)
	if err != nil {
		return fmt.Errorf("encode the trust root: %w", err)
	}
	entry, err := ledger.NewEntry(ledger.TypeRoot, body, rootKey)
	if err != nil {
		return err
	}
	fmt.Fprintf(a.err, "waiting until %d validators have caught up, for at most 2 min\n", o.validators)
	for until := time.Now().Add(2 * time.Minute); ; {
		_, err := c.Submit(ctx, entry)
		if err == nil || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		select {
		case <-time.After(time.Second):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
