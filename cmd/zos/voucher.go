// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec/strict"
)

// voucherKeyExt is added to a voucher's file name for its private key.
const voucherKeyExt = ".key"

func voucherCommand(a *app) *cobra.Command {
	var keys []string
	var id, out, root, expires string
	var uses int64
	var labels map[string]string
	cmd := &cobra.Command{
		Use:   "voucher --key KEY --uses N -o FILE",
		Short: "make a voucher with which nodes enrol",
		Long: `Make and sign a voucher, FILE, and its private key, FILE.key. A node that has both
in its seed can enrol with a key of its own; the labels become the node's, so
that deployments can be placed by them. The ledger counts the uses. The voucher
becomes public when it is used; its key is a secret.

--expires is the moment from which the ledger enrols nobody with it any more, by
the time of its blocks: a length from now (30d, 12h), a date (its first moment in
UTC) or a time (RFC 3339). Nodes that have enrolled stay. Without --expires the
voucher has no end.

A voucher that exists is never overwritten.

Exit codes: 0 made, 3 refused, 4 file not found.`,
		Example: `  zos ledger voucher --key ~/.ssh/operator --root root.json --uses 4 --label site=lab -o voucher.json
  zos ledger voucher --key ~/.ssh/operator --root root.json --uses 100 --expires 30d -o batch.json`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			ends, err := expiry(expires, time.Now())
			if err != nil {
				return coded(exitUsage, err)
			}
			key, text, err := sign.GenerateSigner()
			if err != nil {
				return err
			}
			return a.voucher(ledger.ExpiringVoucher{ID: id, Uses: uses, Key: key.PublicKey(), Labels: labels, ExpiresMs: ends}, text, keys, root, out)
		},
	}
	f := cmd.Flags()
	f.StringArrayVar(&keys, "key", nil, "private key of the operator's role (or .pub of a key in ssh-agent); repeat for each")
	f.StringVar(&root, "root", os.Getenv("ZOS_ROOT"), "trust root envelope, to check the key's role (ZOS_ROOT)")
	f.StringVar(&id, "id", "", "unique name of the voucher (default: random)")
	f.Int64Var(&uses, "uses", 1, "how many nodes can enrol with it")
	f.StringVar(&expires, "expires", "", "when it ends: 30d, 12h, 2027-01-31 or 2027-01-31T12:00:00Z (default: never)")
	f.StringToStringVar(&labels, "label", nil, "KEY=VALUE on the nodes; repeat for each")
	f.StringVarP(&out, "output", "o", "", "file to write")
	given(cmd, "key", "output")
	return cmd
}

// expiry reads --expires: the Unix milliseconds at which a voucher ends, 0 for never.
func expiry(text string, now time.Time) (int64, error) {
	if text == "" {
		return 0, nil
	}
	ends, err := moment(text, now)
	if err != nil {
		return 0, err
	}
	if !ends.After(now) {
		return 0, fmt.Errorf("--expires: %s is past: it is %s by this machine's clock, and no node could enrol", ledger.Moment(ends.UnixMilli()), ledger.Moment(now.UnixMilli()))
	}
	return ends.UnixMilli(), nil
}

func moment(text string, now time.Time) (time.Time, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		n, err := strconv.ParseUint(days, 10, 20)
		if err != nil {
			return now, fmt.Errorf("--expires: %q: want a whole number of days, at most a million, such as 30d", text)
		}
		return now.AddDate(0, 0, int(n)), nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		return now.Add(d), nil
	}
	for _, layout := range []string{time.DateOnly, time.RFC3339} {
		if t, err := time.Parse(layout, text); err == nil {
			return t, nil
		}
	}
	return now, fmt.Errorf("--expires: %q: want a length from now such as 30d or 12h, a date such as 2027-01-31, or a time such as 2027-01-31T12:00:00Z", text)
}

// voucherDocument is the type and the document of a voucher, with an end or without.
func voucherDocument(v *ledger.ExpiringVoucher) (payloadType string, document any, err error) {
	if v.ExpiresMs == 0 {
		return ledger.TypeVoucher, v.Voucher(), v.Voucher().Validate()
	}
	return ledger.TypeExpiringVoucher, v, v.Validate()
}

// voucher signs a voucher and writes it and its private key, once nothing can
// be refused any more: a key that stands there already belongs to a voucher.
func (a *app) voucher(v ledger.ExpiringVoucher, private []byte, keys []string, rootPath, out string) error {
	for _, path := range []string{out, out + voucherKeyExt} {
		if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
			return coded(exitRefused, errors.Join(fmt.Errorf("%s exists and is not overwritten: nodes may still have to enrol with it; name another file, or move it away", path), err))
		}
	}
	if v.ID == "" {
		b := make([]byte, 8)
		if _, err := rand.Read(b); err != nil {
			return fmt.Errorf("random name: %w", err)
		}
		v.ID = "v-" + hex.EncodeToString(b)
	}
	kind, document, err := voucherDocument(&v)
	if err != nil {
		return coded(exitUsage, err)
	}
	body, err := strict.Encode(document)
	if err != nil {
		return fmt.Errorf("encode the voucher: %w", err)
	}
	raw, err := a.signAll(kind, body, keys)
	if err != nil {
		return err
	}
	if rootPath != "" {
		root, err := trustRoot(rootPath)
		if err != nil {
			return err
		}
		env, err := sign.DecodeEnvelope(raw)
		if err != nil {
			return coded(exitRefused, err)
		}
		signed, err := env.Keys()
		if err != nil {
			return coded(exitRefused, err)
		}
		if _, err := root.Fill("voucher", signed, nil); err != nil {
			return coded(exitRefused, fmt.Errorf("voucher: %w", err))
		}
	}
	// The key goes first: a voucher without its key is of no use.
	if err := writeSecret(out+voucherKeyExt, private); err != nil {
		return fmt.Errorf("write the voucher's key: %w", err)
	}
	if err := writeSecret(out, raw); err != nil {
		return fmt.Errorf("write the voucher: %w", err)
	}
	expires, until := "", ""
	if v.ExpiresMs != 0 {
		expires = ledger.Moment(v.ExpiresMs)
		until = " until " + expires
	}
	return a.print(struct {
		ID      string `json:"id"`
		Uses    int64  `json:"uses"`
		Expires string `json:"expires"`
		Output  string `json:"output"`
	}{v.ID, v.Uses, expires, out}, func(w io.Writer) {
		fmt.Fprintf(w, "voucher %s, good for %d nodes%s, is in %s\n", v.ID, v.Uses, until, out)
	})
}
