// SPDX-License-Identifier: Apache-2.0

package main

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/zos-node/zos/image/secureboot"
)

func (a *app) nodeKeys() *cobra.Command {
	var name string
	var also []string
	cmd := &cobra.Command{
		Use:   "keys DIR",
		Short: "make an operator's own Secure Boot keys",
		Long: "Make the three keys of UEFI Secure Boot: PK, KEK and db. Images that are built with\n" +
			"--keys DIR are signed by db, and enrol all three on a machine that is in setup mode.\n\n" +
			"DIR gets, for each: NAME.key (private, mode 0600), NAME.crt, NAME.cer (the same, for\n" +
			"firmware menus) and NAME.auth (for enrolment). Building needs db.key, db.crt, pcr.key and the .auth\n" +
			"files; keep PK.key and KEK.key elsewhere. pcr.key signs what images measure, so that what\n" +
			"is sealed to it can be opened by the next image too. Keys that exist are never overwritten.\n\n" +
			"A machine whose cards have option ROMs needs the certificates of their makers in db as well\n" +
			"(--also), or it may start without a screen or a network card.\n\n" +
			"Exit codes: 0 made, 2 wrong arguments, 3 a certificate is none, or keys exist, 4 no such file.",
		Example: "  zos node keys ./secureboot --name example.org\n  zos node build --keys ./secureboot --root ledger/root.json -o build/images/pc",
		Args:    exactly(1, "the folder for the keys"),
		RunE: func(_ *cobra.Command, args []string) error {
			if strings.TrimSpace(name) == "" {
				return coded(exitUsage, errors.New("--name: is empty; it stands in the certificates, where a firmware's menu shows it: say whose keys these are, such as --name example.org"))
			}
			now := time.Now()
			k, err := secureboot.Generate(name, now)
			if err != nil {
				return err
			}
			for _, file := range also {
				c, err := readCertificate(file)
				if err != nil {
					return err
				}
				k.Also = append(k.Also, c)
			}
			if err := k.Write(args[0], now); err != nil {
				if errors.Is(err, fs.ErrExist) {
					return coded(exitRefused, fmt.Errorf("%w; keys are not overwritten: name another folder", err))
				}
				return err
			}
			return a.print(map[string]any{"keys": args[0], "also": len(also)}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: PK, KEK and db of %s, %d further certificates in db\nnext: zos node build --keys %s …\n", args[0], name, len(also), args[0])
			})
		},
	}
	cmd.Flags().StringVar(&name, "name", "zos", "whose keys these are: stands in the certificates")
	cmd.Flags().StringArrayVar(&also, "also", nil, "certificate (PEM or DER) that goes into db beside ours (repeat)")
	return cmd
}

// readCertificate takes PEM or DER.
func readCertificate(file string) (*x509.Certificate, error) {
	b, err := readFile(file, "a certificate", maxKeyFile)
	if err != nil {
		return nil, fileError(fmt.Errorf("--also: %w", err))
	}
	if p, _ := pem.Decode(b); p != nil {
		if p.Type != "CERTIFICATE" {
			return nil, coded(exitRefused, fmt.Errorf("--also: %s holds a %s, want an X.509 certificate (-----BEGIN CERTIFICATE-----)", file, p.Type))
		}
		b = p.Bytes
	}
	c, err := x509.ParseCertificate(b)
	if err != nil {
		return nil, coded(exitRefused, fmt.Errorf("--also: %s is no X.509 certificate, as PEM (-----BEGIN CERTIFICATE-----) or as DER (what firmware menus call .cer): %w", file, err))
	}
	return c, nil
}
