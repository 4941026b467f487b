// SPDX-License-Identifier: Apache-2.0

package deb

import (
	"bytes"
	"testing"
)

func TestRefused(t *testing.T) {
	good := func() Package { return Package{Name: "zos", Version: "1.0", Files: []File{{Path: "/usr/bin/zos"}}} }
	if err := good().Write(&bytes.Buffer{}); err != nil {
		t.Fatal(err)
	}
	for name, edit := range map[string]func(*Package){
		"no name":        func(p *Package) { p.Name = "" },
		"a capital":      func(p *Package) { p.Name = "Zos" },
		"a revision":     func(p *Package) { p.Version = "1-1" },
		"a line":         func(p *Package) { p.Version = "1\nDepends: x" },
		"relative":       func(p *Package) { p.Files[0].Path = "usr/bin/zos" },
		"not clean":      func(p *Package) { p.Files[0].Path = "/usr/../zos" },
		"the same twice": func(p *Package) { p.Files = append(p.Files, p.Files[0]) },
	} {
		p := good()
		edit(&p)
		if err := p.Write(&bytes.Buffer{}); err == nil {
			t.Errorf("%s: was written", name)
		}
	}
}
