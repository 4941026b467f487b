// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/kernel"
	"github.com/zos-node/zos/kernel/debian"
	"github.com/zos-node/zos/kernel/modules"
)

// sampleMedium is a whole image of small files.
func sampleMedium(t *testing.T, change func(*Tree)) *Medium {
	t.Helper()
	s := stub(t)
	deb := debian.Package{Name: "linux-test", Version: "6", SHA256: strings.Repeat("a", 64)}
	u := sample(s)
	k := &kernel.Linux{Package: deb, Release: "6", Image: u.Linux, Tree: modules.NewTree("6")}
	out, err := outside(k, &kernel.EFI{Package: debian.Package{Name: "efi"}, Stub: s, Loader: s})
	if err != nil {
		t.Fatal(err)
	}
	tree, _, err := Node{
		Linux: k, Init: []byte("i"), Agent: []byte("a"), Root: []byte("r"), OSRelease: OSRelease("1", "b"), Version: "1", Outside: out,
		Hypervisor: kernel.Hypervisor{Name: "ch", Version: "v9", Digest: "sha256:" + strings.Repeat("b", 64), Files: []kernel.File{{Path: "/bin/ch", Mode: 0o755, Data: []byte("h")}}},
		Firmware:   []kernel.FirmwareFile{{Path: "x/y.bin", Data: []byte("f"), Package: debian.Package{Name: "firmware-x", Version: "2"}}},
	}.Tree()
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(tree)
	}
	plain, err := tree.CPIO()
	if err != nil {
		t.Fatal(err)
	}
	if u.Initrd, err = Zstd(plain); err != nil {
		t.Fatal(err)
	}
	b, err := u.Build()
	if err != nil {
		t.Fatal(err)
	}
	return &Medium{Kind: KindDisk, Boot: Boot{Arch: "amd64", UKI: b, Loader: s}}
}

func TestInspect(t *testing.T) {
	m := sampleMedium(t, nil)
	r, err := Inspect(m)
	if err != nil || len(r.Problems) != 0 {
		t.Fatalf("%v, problems %q", err, r.Problems)
	}
	origins := map[string]string{}
	for _, p := range r.Parts {
		origins[p.Path] = p.Origin.Name + " " + p.Origin.Version
		if p.Path == partLoader && p.Size != int64(len(m.Loader)) || p.Origin.Name == "" {
			t.Errorf("%s has %d bytes and comes from %q", p.Path, p.Size, p.Origin.Name)
		}
	}
	for path, want := range map[string]string{
		"/init": "zos 1", "/bin/ch": "ch v9", "/lib/firmware/x/y.bin": "firmware-x 2", "uki:.linux": "linux-test 6", "uki:stub": "efi ", "esp:loader": "efi ",
		"/lib/modules/6/modules.dep": "zos 1", partsPath: "zos 1",
	} {
		if origins[path] != want {
			t.Errorf("%s comes from %q, want %q", path, origins[path], want)
		}
	}
	if want, err := measure.UKI(bytes.NewReader(m.UKI)); err != nil || r.PCR11 == strings.Repeat("0", 64) || len(r.PCR11) != 2*len(want) {
		t.Errorf("PCR 11 is %s, %v", r.PCR11, err)
	}
	given := *m
	given.Seed, given.Keys, given.conf = []byte("{}"), map[string][]byte{"db.auth": []byte("db"), "PK.auth": []byte("pk")}, []byte("timeout 0")
	if r, err := Inspect(&given); err != nil || len(r.Problems) != 0 {
		t.Errorf("with what a medium is given: %v, %q", err, r.Problems)
	} else {
		got := ""
		for _, p := range r.Beside {
			got += fmt.Sprintf("%s %d %s; ", p.Path, p.Size, p.Origin.Name)
		}
		if want := "esp:/loader/keys/auto/PK.auth 2 keys-of-the-maker; esp:/loader/keys/auto/db.auth 2 keys-of-the-maker; esp:/loader/loader.conf 9 zos; esp:/zos/seed.json 2 seed-of-the-node; "; got != want {
			t.Errorf("beside it are %s", got)
		}
	}
	broken := *m
	broken.UKI = broken.UKI[:len(broken.UKI)-1000]
	if _, err := InspectAll([]*Medium{&broken}); err == nil || strings.HasPrefix(err.Error(), ":") {
		t.Errorf("a damaged UKI: %v", err)
	}
	for name, c := range map[string]struct {
		change func(*Medium)
		says   string
	}{
		"another loader": {func(m *Medium) { m.Loader = m.UKI }, "esp:loader: has SHA-256"},
		"no loader":      {func(m *Medium) { m.Loader = nil }, "esp:loader: on the list, but not there"},
	} {
		changed := *m
		c.change(&changed)
		r, err := Inspect(&changed)
		if err != nil || !strings.Contains(strings.Join(r.Problems, "\n"), c.says) {
			t.Errorf("%s: %v, %q", name, err, r.Problems)
		}
	}
	// A signature of another image's measurement.
	for name, problems := range map[string]int{"ours": 0, "another's": 1} {
		key, err := rsa.GenerateKey(rand.Reader, 2048)
		if err != nil {
			t.Fatal(err)
		}
		u, err := ReadUKI(m.UKI)
		if err != nil {
			t.Fatal(err)
		}
		u.Stub = stub(t)
		if u.PCRKey, err = measure.PublicKey(key); err != nil {
			t.Fatal(err)
		}
		built, err := u.Build()
		if err != nil {
			t.Fatal(err)
		}
		register, err := measure.UKI(bytes.NewReader(built))
		if err != nil {
			t.Fatal(err)
		}
		if name != "ours" {
			register.Extend([]byte("more"))
		}
		if u.PCRSig, err = register.Sign(key); err != nil {
			t.Fatal(err)
		}
		signed := *m
		if signed.UKI, err = u.Build(); err != nil {
			t.Fatal(err)
		}
		if again, err := ReadUKI(signed.UKI); err != nil || !bytes.Equal(again.PCRSig, u.PCRSig) || !bytes.Equal(again.PCRKey, u.PCRKey) {
			t.Errorf("read back: %v", err)
		}
		if r, err := Inspect(&signed); err != nil || len(r.Problems) != problems {
			t.Errorf("%s: %v, %q", name, err, r.Problems)
		}
	}
	// A file that came in after the list was made.
	r, err = Inspect(sampleMedium(t, func(tr *Tree) { tr.File("bin/sh", 0o755, []byte("x")) }))
	if err != nil || len(r.Problems) != 1 || !strings.Contains(r.Problems[0], "/bin/sh: not on") {
		t.Errorf("%v, %q", err, r.Problems)
	}
}

// TestInspectSeesEveryArchive: the kernel unpacks all archives that stand one
// behind the other, and the last file of a name wins. An image with a second
// one is none of ours.
func TestInspectSeesEveryArchive(t *testing.T) {
	m := sampleMedium(t, nil)
	u, err := ReadUKI(m.UKI)
	if err != nil {
		t.Fatal(err)
	}
	u.Stub = stub(t)
	plain, err := unpacked(u.Initrd, maxInitramfs)
	if err != nil {
		t.Fatal(err)
	}
	evil := Patch()
	evil.File("bin/agent", 0o755, []byte("another agent"))
	second, err := evil.CPIO()
	if err != nil {
		t.Fatal(err)
	}
	for how := range packers {
		pack := func(b []byte) []byte {
			out, err := Pack(how, b)
			if err != nil {
				t.Fatal(err)
			}
			return out
		}
		for name, initrd := range map[string][]byte{
			"alone":             pack(plain),
			"in one frame":      pack(append(bytes.Clone(plain), second...)),
			"a frame behind it": append(pack(plain), pack(second)...),
			"behind zeros":      append(append(pack(plain), make([]byte, 16)...), pack(second)...),
			"not compressed":    append(append(pack(plain), make([]byte, 4)...), second...),
		} {
			u.Initrd = initrd
			built, err := u.Build()
			if err != nil {
				t.Fatal(err)
			}
			changed := *m
			changed.UKI = built
			r, err := Inspect(&changed)
			if clean := err == nil && len(r.Problems) == 0; clean != (name == "alone") {
				t.Errorf("%s, %s: %v, %q", how, name, err, r.Problems)
			}
		}
	}
}

// TestSPDX: every part is there, with its digest, and belongs to the image.
func TestSPDX(t *testing.T) {
	r, err := Inspect(sampleMedium(t, nil))
	if err != nil {
		t.Fatal(err)
	}
	b, err := r.SPDX()
	if err != nil {
		t.Fatal(err)
	}
	again, err := r.SPDX()
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("not the same twice: %v", err)
	}
	var doc struct {
		Version   string         `json:"spdxVersion"`
		Packages  []spdxPackage  `json:"packages"`
		Relations []spdxRelation `json:"relationships"`
	}
	if err := json.Unmarshal(b, &doc); err != nil || doc.Version != "SPDX-2.3" {
		t.Fatal(err)
	}
	ids, contained := map[string]bool{}, 0
	for _, p := range doc.Packages {
		ids[p.ID] = true
	}
	for _, rel := range doc.Relations {
		if rel.Kind == "CONTAINS" {
			contained++
		}
		if !ids[rel.To] || !ids[rel.From] && rel.From != "SPDXRef-DOCUMENT" {
			t.Errorf("%+v leads nowhere", rel)
		}
	}
	if contained != len(r.Parts) {
		t.Errorf("%d files of %d", contained, len(r.Parts))
	}
}
