// SPDX-License-Identifier: Apache-2.0

package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"strings"
	"testing"

	"github.com/zos-node/zos/spec"
	"github.com/zos-node/zos/spec/spectest"
)

// shelf resolves what the tests refer to.
type shelf struct{}

func (shelf) File(ref string) (string, error) {
	switch ref {
	case "vmlinuz":
		return spectest.Digest("a"), nil
	case "initramfs":
		return spectest.Digest("b"), nil
	}
	return "", os.ErrNotExist
}

func (shelf) Image(ref, platform string) (ResolvedImage, error) {
	i := spec.Image{OCI: spectest.Digest("1"), Platform: platform, ID: spectest.Digest("2"), VerityRoot: strings.Repeat("3", 64)}
	switch ref {
	case "oci:images/app":
		return ResolvedImage{Image: i, Args: []string{"app", "--serve"}, Env: map[string]string{"PATH": "/app", "DEBUG": "yes", "LANG": "C"}, Cwd: "/srv", User: "1000:1001", StopSignal: "QUIT"}, nil
	case "oci:images/web":
		return ResolvedImage{Image: i}, nil
	}
	return ResolvedImage{}, errors.New("a tag, and nobody knows its digest")
}

func shop(t testing.TB) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/shop.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// TestGolden compares with the committed result, which people can review.
func TestGolden(t *testing.T) {
	got, err := Deployment(shop(t), shelf{})
	if err != nil {
		t.Fatal(err)
	}
	const golden = "testdata/shop.spec.json"
	if flag.Lookup("update").Value.String() == "true" {
		if err := os.WriteFile(golden, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("rendered\n%s\nwant\n%s", got, want)
	}
	d, err := spec.Decode(got)
	if err != nil {
		t.Fatal(err)
	}
	app, web := d.Machines[0], d.Machines[1]
	for what, pair := range map[string][2]string{
		"the image's command":             {strings.Join(app.Process.Args, " "), "app --serve"},
		"the author's command":            {strings.Join(web.Process.Args, " "), "nginx -g daemon off;"},
		"the image's variable":            {app.Process.Env["LANG"], "C"},
		"the author's over the image's":   {app.Process.Env["DEBUG"], "no"},
		"text that looks like a number":   {app.Process.Env["VERSION"], "1.10"},
		"the image's PATH":                {app.Process.Env["PATH"], "/app"},
		"PATH that nobody gave":           {web.Process.Env["PATH"], dockerPath},
		"the image's folder":              {app.Process.Cwd, "/srv"},
		"the image's user":                {app.Process.User, "1000:1001"},
		"the image's stop signal":         {app.Process.StopSignal, "SIGQUIT"},
		"the default stop signal":         {web.Process.StopSignal, "SIGTERM"},
		"a mount of a volume":             {app.Mounts[0].Type, "volume"},
		"a mount without volume":          {app.Mounts[1].Type, "tmpfs"},
		"the first free address":          {app.Interfaces[0].Address, "10.42.0.2"},
		"the second free address":         {web.Interfaces[0].Address, "10.42.0.3"},
		"the network that web is in":      {d.Gateways[0].Network, "inner"},
		"the path of a check":             {web.Health.Path, "/"},
		"the digest of a file":            {app.Kernel, spectest.Digest("a")},
		"text that a block style has":     {web.Files[0].Content, "events {}\n"},
		"the platform of the placement":   {app.Image.Platform, "linux/amd64"},
		"what nobody may be told to keep": {strings.Join(app.Process.Capabilities, " "), ""},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: got %q, want %q", what, pair[0], pair[1])
		}
	}
	if m := app.Mounts[0]; m.UID != 1000 || m.GID != 1001 {
		t.Errorf("a mount belongs to %d:%d, want the user of the process", m.UID, m.GID)
	}
}

// TestSame: the result does not depend on the run, on who renders again, or
// on the notation.
func TestSame(t *testing.T) {
	first, err := Deployment(shop(t), shelf{})
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if again, err := Deployment(shop(t), shelf{}); err != nil || !bytes.Equal(first, again) {
			t.Fatalf("the second run gives %s, %v", again, err)
		}
	}
	// The result is complete: no resolver is needed any more.
	if again, err := Deployment(first, nil); err != nil || !bytes.Equal(first, again) {
		t.Errorf("rendered again:\n%s, %v\nwant\n%s", again, err, first)
	}
	full, err := spectest.Full().Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Deployment(full, nil); err != nil || !bytes.Equal(full, again) {
		t.Errorf("rendered again:\n%s, %v\nwant\n%s", again, err, full)
	}
	tree, err := parseYAML(shop(t))
	if err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.MarshalIndent(tree, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if again, err := Deployment(asJSON, shelf{}); err != nil || !bytes.Equal(first, again) {
		t.Errorf("as JSON:\n%s, %v\nwant\n%s", again, err, first)
	}
}

// TestRefused: YAML with two readings, fields that are wrong, references that
// lead nowhere.
func TestRefused(t *testing.T) {
	good := string(shop(t))
	replace := func(old, new string) string {
		if !strings.Contains(good, old) {
			t.Fatalf("%q is not in the document", old)
		}
		return strings.Replace(good, old, new, 1)
	}
	for name, c := range map[string]struct{ in, field, reason string }{
		"anchor":               {replace("name: shop", "name: &n shop"), "metadata.name", "anchor: write values out where they stand (line 4)"},
		"alias":                {replace("machine: web", "machine: *n") + "x: &n web\n", "", "unknown anchor"},
		"alias to an anchor":   {replace("labels: {team: sales}", "labels: {team: &n sales, b: *n}"), "metadata.labels.team", "anchor"},
		"anchor on a mapping":  {replace("labels: {team: sales}", "labels: &l {team: sales}"), "metadata.labels", "anchor"},
		"merge key":            {replace("labels: {team: sales}", "<<: {name: x}"), "metadata", "merge key"},
		"tag":                  {replace("name: shop", "name: !!str shop"), "metadata.name", "tag !!str"},
		"own tag":              {replace("name: shop", "name: !secret shop"), "metadata.name", "tag !secret"},
		"tag on a list":        {replace("dependsOn: [app]", "dependsOn: !!seq [app]"), "machines[1].dependsOn", "tag"},
		"duplicate key":        {replace("name: shop", "name: shop\n  name: shop"), "metadata.name", "is there twice (line 5)"},
		"second document":      {good + "---\na: 1\n", "", "multiple"},
		"leading zero":         {replace("sizeMiB: 64", "sizeMiB: 064"), "volumes[0].sizeMiB", "leading zero"},
		"mode as a number":     {replace(`mode: "1777"`, `mode: 0755`), "machines[0].mounts[1].mode", "put text in quotes"},
		"hexadecimal":          {replace("sizeMiB: 64", "sizeMiB: 0x40"), "volumes[0].sizeMiB", "plain decimal"},
		"underscore":           {replace("sizeMiB: 64", "sizeMiB: 6_4"), "volumes[0].sizeMiB", "plain decimal"},
		"float":                {replace("sizeMiB: 64", "sizeMiB: 64.0"), "volumes[0].sizeMiB", "is a float"},
		"quantity":             {replace("sizeMiB: 64", "sizeMiB: 64M"), "volumes[0].sizeMiB", "is a string, want a number"},
		"null":                 {replace("name: shop", "name: ~"), "metadata.name", "is null"},
		"nothing":              {replace("name: shop", "name:"), "metadata.name", "is null"},
		"unknown field":        {replace("name: shop", "name: shop\n  nmae: x"), "metadata.nmae", "unknown field (line 5)"},
		"wrong case":           {replace("dependsOn", "dependson"), "machines[1].dependson", `want "dependsOn"`},
		"absent name":          {replace("  - name: inner", "  - isolation: outbound"), "networks[0].name", "is absent"},
		"absent kernel":        {replace("    kernel: file:vmlinuz\n", ""), "machines[0].kernel", "is absent"},
		"absent image":         {replace("    image: oci:images/app\n", ""), "machines[0].image", "is absent"},
		"absent args":          {replace("      args: [nginx, -g, daemon off;]\n", ""), "machines[1].process.args", "is absent"},
		"tag of an image":      {replace("oci:images/app", "nginx:latest"), "machines[0].image", "nobody knows its digest"},
		"tag as digest":        {replace("image: oci:images/app", "image: {oci: 'nginx:1', platform: linux/amd64, id: x, verityRoot: x}"), "machines[0].process.args", "is absent"},
		"no such file":         {replace("file:vmlinuz", "file:vmlinux"), "machines[0].kernel", "does not exist"},
		"kernel without file:": {replace("file:vmlinuz", "vmlinuz"), "machines[0].kernel", "want sha256:<64 hex>"},
		"machine of a gateway": {replace("machine: web", "machine: www"), "gateways[0].network", "is absent"},
		"key that is a list":   {replace("labels: {team: sales}", "labels: {[a]: b}"), "metadata", "no plain text"},
		"list for a mapping":   {replace("labels: {team: sales}", "labels: [team]"), "metadata.labels", "is a list, want an object"},
		"top is a list":        {"[]", "", "no mapping"},
		"top is text":          {"shop", "", "no mapping"},
		"empty":                {"", "", "not valid YAML"},
		"only a comment":       {"# nothing\n", "", "not valid YAML"},
		"UTF-8":                {replace("sales", "\xff"), "", "not valid YAML"},
		"NUL":                  {replace("sales", `"\0"`), "metadata.labels.team", "NUL"},
		"JSON, twice":          {`{"metadata":{},"metadata":{}}`, "metadata", "twice"},
		"JSON, wrong case":     {`{"Metadata":{}}`, "Metadata", "case counts"},
		"too long":             {strings.Repeat("#", maxInput+1), "", "at most"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Deployment([]byte(c.in), shelf{})
			var e *spec.FieldError
			if !errors.As(err, &e) {
				t.Fatalf("got %v, want a refusal of %q", err, c.field)
			}
			if !strings.HasPrefix(e.Field, c.field) || !strings.Contains(e.Reason, c.reason) {
				t.Errorf("refused %q because it %q, want %q because of %q", e.Field, e.Reason, c.field, c.reason)
			}
		})
	}
	if _, err := Deployment(shop(t), nil); err == nil || !strings.Contains(err.Error(), "cannot be read here") {
		t.Errorf("without a resolver: %v", err)
	}
}

// TestDefaultsAreAll: every row of the table does something, so that the
// table is neither wrong nor too long.
func TestDefaultsAreAll(t *testing.T) {
	seen := map[string]bool{}
	for _, row := range Defaults() {
		if row.Value != "" && !json.Valid([]byte(row.Value)) {
			t.Errorf("%s: %s is not JSON", row.Path, row.Value)
		}
		if row.Value == "" && row.Note == "" {
			t.Errorf("%s: neither a value nor a word about it", row.Path)
		}
		if seen[row.Path+" "+row.When] {
			t.Errorf("%s when %q: is there twice", row.Path, row.When)
		}
		seen[row.Path+" "+row.When] = true
		// A row that names no field of the types would make an unknown field.
		var hits int
		full, err := spectest.Full().Encode()
		if err != nil {
			t.Fatal(err)
		}
		tree, err := parse(full)
		if err != nil {
			t.Fatal(err)
		}
		err = each(tree, strings.Split(row.Path, "."), func(parent map[string]any, name string) error {
			if _, ok := parent[name]; ok {
				hits++
			}
			return nil
		})
		if err != nil || hits == 0 {
			t.Errorf("%s: no such field (%v)", row.Path, err)
		}
	}
}

// The guest's console has another name on arm64, and a panic there is told by
// a reset.
func TestCmdlineOfArch(t *testing.T) {
	for arch, want := range map[string]string{"": "console=ttyS0 quiet loglevel=4 panic=0 ", "arm64": "console=ttyAMA0 quiet loglevel=4 panic=-1 "} {
		top := map[string]any{"machines": []any{map[string]any{}}}
		if arch != "" {
			top["placement"] = map[string]any{"arch": arch}
		}
		for _, row := range Defaults() {
			if err := row.apply(top); err != nil {
				t.Fatal(err)
			}
		}
		if got := top["machines"].([]any)[0].(map[string]any)["cmdline"].(string); !strings.HasPrefix(got, want) {
			t.Errorf("arch %q: %s", arch, got)
		}
	}
}

func TestFullSubnet(t *testing.T) {
	in := "metadata: {name: a}\nnetworks: [{name: n, subnet: 10.9.0.0/29}]\nmachines:\n"
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		in += "  - {name: " + name + ", kernel: file:vmlinuz, initramfs: file:initramfs, image: 'oci:images/app', interfaces: [{network: n}]}\n"
	}
	_, err := Deployment([]byte(in), shelf{})
	var e *spec.FieldError
	if !errors.As(err, &e) || e.Field != "machines[5].interfaces[0].address" || e.Reason != "is absent" {
		t.Errorf("six machines in a subnet with five places: %v", err)
	}
}

func FuzzDeployment(f *testing.F) {
	f.Add(shop(f))
	f.Add([]byte(`{"metadata":{"name":"a"},"machines":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		out, err := Deployment(b, shelf{})
		if err != nil {
			return
		}
		if _, err := spec.Decode(out); err != nil {
			t.Fatalf("rendered what is refused: %v", err)
		}
		if again, err := Deployment(out, nil); err != nil || !bytes.Equal(out, again) {
			t.Fatalf("%s became %s, %v", out, again, err)
		}
	})
}

func TestMain(m *testing.M) {
	flag.Bool("update", false, "write the golden file instead of comparing with it")
	os.Exit(m.Run())
}
