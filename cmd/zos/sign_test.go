// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/zos-node/zos/ledger"
	"github.com/zos-node/zos/sign"
	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
)

// TestSignAndVerify is the way of the operator: three keys, two roles.
func TestSignAndVerify(t *testing.T) {
	d := newTrust(t)
	env := d.file("env.json")
	text, errs := d.sign(exitOK, "author", "author", d.spec, env)
	says(t, text, "signed as author with "+d.ids["author"], "deployment shop, version 3", "author       1 of 1  filled", "security     0 of 2  MISSING")
	if errs != "" {
		t.Errorf("says %q", errs)
	}
	text, errs = cli(t, exitRefused, "verify", env, "--root", d.root)
	says(t, text, d.ids["author"], "in author, security", "NOT met")
	says(t, errs, `role "security" has 0 of 2 keys`, "one key fills one role")

	d.sign(exitOK, "security1", "security", env, env)
	_, errs = cli(t, exitRefused, "verify", env, "--root", d.root)
	says(t, errs, `role "security" has 1 of 2 keys`)

	d.sign(exitOK, "security2", "security", env, env)
	text, _ = cli(t, exitOK, "verify", env, "--root", d.root)
	says(t, text, spec.Digest(get(t, d.spec)), d.ids["author"], d.ids["security1"], d.ids["security2"], "security     2 of 2  filled", "root version 1: met")

	// The payload is the file that was signed, byte for byte.
	e, err := sign.DecodeEnvelope(get(t, env))
	if err != nil || !bytes.Equal(e.Payload, get(t, d.spec)) {
		t.Errorf("the payload differs from the spec (%v)", err)
	}
	if _, err := ledger.Decode(get(t, env)); err != nil {
		t.Errorf("the ledger refuses the envelope: %v", err)
	}
	text, _ = cli(t, exitOK, "check", env)
	says(t, text, "deployment shop, version 3")

	text, _ = cli(t, exitOK, "verify", env, "--root", d.root, "--json")
	var r report
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	if r.Name != "shop" || r.Version != 3 || len(r.Signatures) != 3 || r.Policy == nil || !r.Policy.Met || len(r.Policy.Roles) != 2 || r.Policy.Roles[1].Have != 2 {
		t.Errorf("--json gives %+v", r)
	}
	text, _ = cli(t, exitOK, "verify", env)
	says(t, text, "not checked: no trust root was given")
}

// TestSignRefuses: nothing is written when a signature makes no sense.
func TestSignRefuses(t *testing.T) {
	d := newTrust(t)
	env, out := d.file("env.json"), d.file("out.json")
	d.sign(exitOK, "author", "author", d.spec, env)
	altered := func(name, old, new string) string {
		text := string(get(t, env))
		if !strings.Contains(text, old) {
			t.Fatalf("%q is not in the envelope", old)
		}
		return put(t, d.file(name), strings.Replace(text, old, new, 1))
	}
	bad := put(t, d.file("bad.json"), strings.Replace(string(get(t, d.spec)), `"replicas":2`, `"replicas":2.5`, 1))
	put(t, d.file("unsafe"), string(get(t, d.key("author"))))
	if err := os.Chmod(d.file("unsafe"), 0o644); err != nil {
		t.Fatal(err)
	}
	otherRoot := put(t, d.file("other-root.json"), strings.Replace(string(get(t, d.root)), "SHA256:", "SHA256;", 1))
	for name, c := range map[string]struct {
		code          int
		key, role, in string
		more          []string
		want          string
	}{
		"key of no role":       {exitRefused, "stranger", "author", d.spec, nil, "is not in role \"author\" of root version 1"},
		"key of another role":  {exitRefused, "security1", "author", d.spec, nil, "is not in role \"author\""},
		"no such role":         {exitRefused, "author", "boss", d.spec, nil, "has no role \"boss\""},
		"signed already":       {exitRefused, "author", "author", env, nil, "has signed this envelope already"},
		"signed as another":    {exitRefused, "author", "security", env, nil, "has signed this envelope already"},
		"invalid spec":         {exitRefused, "author", "author", bad, nil, "placement.replicas: is a float"},
		"altered payload":      {exitRefused, "security1", "security", altered("a.json", `"payload":"e`, `"payload":"f`), nil, "a.json"},
		"other namespace":      {exitRefused, "security1", "security", altered("n.json", "zos.deployment.", "zos.voucher."), nil, `namespace "deployment@zos", want "voucher@zos"`},
		"one key, another id":  {exitRefused, "security1", "security", altered("i.json", d.ids["author"], d.ids["security1"]), nil, "was made by key " + d.ids["author"]},
		"no such file":         {exitNotFound, "author", "author", d.file("nowhere"), nil, "nowhere"},
		"no such key":          {exitNotFound, "nobody", "author", d.spec, nil, "nobody"},
		"key others can read":  {exitRefused, "unsafe", "author", d.spec, nil, "chmod 600"},
		"no such root":         {exitNotFound, "author", "author", d.spec, []string{"--root", d.file("nowhere")}, "trust root"},
		"forged root":          {exitRefused, "author", "author", d.spec, []string{"--root", otherRoot}, "other-root.json"},
		"root is no root":      {exitRefused, "author", "author", d.spec, []string{"--root", env}, "root of trust"},
		"unknown kind":         {exitUsage, "author", "author", d.spec, []string{"--type", "poem"}, "poem"},
		"spec as a voucher":    {exitRefused, "author", "author", d.spec, []string{"--type", "voucher"}, "unknown field"},
		"no folder to write":   {exitFailed, "author", "author", d.spec, []string{"-o", d.file("no/where")}, "write the envelope"},
		"key is needed":        {exitUsage, "author", "author", d.spec, []string{"--key", ""}, "--key is needed"},
		"role is needed":       {exitUsage, "author", "", d.spec, nil, "--role is needed"},
		"output is needed":     {exitUsage, "author", "author", d.spec, []string{"-o", ""}, "--output is needed"},
		"two files":            {exitUsage, "author", "author", d.spec, []string{env}, "want the spec or envelope"},
		"public key, no agent": {exitFailed, "author.pub", "author", d.spec, nil, "ssh-agent"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("SSH_AUTH_SOCK", "")
			d := *d
			d.t = t
			_, errs := d.sign(c.code, c.key, c.role, c.in, out, c.more...)
			says(t, errs, c.want)
			if _, err := os.Stat(out); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("an envelope was written (%v)", err)
			}
		})
	}
	before := get(t, env)
	d.sign(exitRefused, "author", "author", env, env)
	if !bytes.Equal(before, get(t, env)) {
		t.Error("a refusal has changed the envelope")
	}
}

// TestSignWithoutRoot: it works, and says what was not checked.
func TestSignWithoutRoot(t *testing.T) {
	d := newTrust(t)
	env := d.file("env.json")
	_, errs := cli(t, exitOK, "sign", "--key", d.key("stranger"), "--role", "author", d.spec, "-o", env)
	says(t, errs, "without --root nobody checks")
	text, _ := cli(t, exitRefused, "verify", env, "--root", d.root)
	says(t, text, "in no role", "author       0 of 1  MISSING")
}

// TestSignVoucher signs a document of another type.
func TestSignVoucher(t *testing.T) {
	d := newTrust(t)
	key, _, err := sign.GenerateSigner()
	if err != nil {
		t.Fatal(err)
	}
	doc := put(t, d.file("voucher.json"), `{"id":"v1","uses":1,"key":"`+key.PublicKey()+`","labels":{}}`)
	env := d.file("voucher.env")
	text, errs := d.sign(exitOK, "operator", "operator", doc, env, "--type", "voucher")
	says(t, text, "voucher", "operator     1 of 1  filled")
	if errs != "" {
		t.Errorf("says %q", errs)
	}
	cli(t, exitOK, "verify", env, "--root", d.root)
	_, errs = cli(t, exitRefused, "check", env)
	says(t, errs, "is an envelope of a voucher, want a deployment")
	_, errs = d.sign(exitOK, "security1", "security", env, env)
	says(t, errs, `does not require role "security" for a voucher`)
}

// TestRequiredRoles: the spec may ask for more than the policy does.
func TestRequiredRoles(t *testing.T) {
	d := newTrust(t)
	full := spectest.Full()
	full.Security.RequiredRoles = []string{"operator"}
	text, err := full.Encode()
	if err != nil {
		t.Fatal(err)
	}
	put(t, d.spec, string(text))
	env := d.file("env.json")
	in := d.spec
	for _, k := range [][2]string{{"author", "author"}, {"security1", "security"}, {"security2", "security"}} {
		d.sign(exitOK, k[0], k[1], in, env)
		in = env
	}
	_, errs := cli(t, exitRefused, "verify", env, "--root", d.root)
	says(t, errs, `role "operator" has 0 of 1 keys`)
	_, errs = d.sign(exitOK, "operator", "operator", env, env)
	if errs != "" {
		t.Errorf("the spec requires this role, but sign says %q", errs)
	}
	cli(t, exitOK, "verify", env, "--root", d.root)
}
