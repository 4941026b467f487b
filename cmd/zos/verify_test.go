// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/zos-node/zos/sign"
)

func TestVerifyRefuses(t *testing.T) {
	d := newTrust(t)
	env := d.file("env.json")
	d.sign(exitOK, "author", "author", d.spec, env)
	good := string(get(t, env))
	e, err := sign.DecodeEnvelope(get(t, env))
	if err != nil {
		t.Fatal(err)
	}
	e.Payload = bytes.Replace(e.Payload, []byte(`"replicas":2`), []byte(`"replicas":3`), 1)
	altered, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		code      int
		doc, want string
	}{
		"altered payload": {exitRefused, string(altered), "signatures[0].sig: of key " + d.ids["author"] + " is wrong for this payload"},
		"duplicate key":   {exitRefused, strings.Replace(good, `"payload":`, `"payload":"","payload":`, 1), "payload: is there twice"},
		"trailing data":   {exitRefused, good + "x", "trailing data"},
		"bare spec":       {exitRefused, string(get(t, d.spec)), "zos sign makes an envelope"},
	} {
		_, errs := cli(t, c.code, "verify", put(t, d.file("x.json"), c.doc))
		if !strings.Contains(errs, c.want) {
			t.Errorf("%s: says %q, want %q", name, errs, c.want)
		}
	}
	cli(t, exitNotFound, "verify", d.file("nowhere"))
	cli(t, exitUsage, "verify")
}
