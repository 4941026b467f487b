// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"debug/pe"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/u-root/mkuimage/cpio"

	"github.com/zos-node/zos/agent/pcrsig/measure"
	"github.com/zos-node/zos/image/secureboot"
	"github.com/zos-node/zos/kernel"
)

// maxInitramfs bounds what an image may unpack to.
const maxInitramfs = 1 << 30

// Report is what an image holds, found out from its bytes alone.
type Report struct {
	Kind     string   `json:"kind"`
	Path     string   `json:"path,omitempty"` // of the UKI on the boot partition
	Release  string   `json:"release"`        // os-release text
	Cmdline  string   `json:"cmdline"`
	Kernel   string   `json:"kernel"`
	UKI      Item     `json:"uki"`
	PCR11    string   `json:"pcr11"` // what a TPM's register 11 (SHA-256) will hold
	Signed   bool     `json:"signed"`
	Enrols   []string `json:"enrols"` // keys that the medium enrols in setup mode
	Seeded   bool     `json:"seeded"`
	Parts    []Part   `json:"parts"`
	Beside   []Part   `json:"beside"`   // on the boot partition and on no list: what a medium gets from whoever makes it
	Problems []string `json:"problems"` // where the list inside the image and its bytes differ
}

// Inspect takes a medium apart and compares every file with the list that the
// image carries. The list is the image's own word: whoever signed the image
// signed it too; the bytes are checked.
func Inspect(m *Medium) (*Report, error) {
	u, err := ReadUKI(m.UKI)
	if err != nil {
		return nil, err
	}
	register, err := measure.UKI(bytes.NewReader(m.UKI))
	if err != nil {
		return nil, err
	}
	r := &Report{
		Kind: m.Kind, Path: m.Path, Release: string(u.OSRel), Cmdline: u.Cmdline, Kernel: u.Uname, UKI: item(m.UKI), PCR11: hex.EncodeToString(register[:]),
		Seeded: m.Seed != nil, Enrols: []string{}, Problems: []string{},
	}
	if r.Signed, err = secureboot.Signed(m.UKI); err != nil {
		return nil, err
	}
	for k := range m.Keys {
		r.Enrols = append(r.Enrols, k)
	}
	slices.Sort(r.Enrols)
	if u.PCRKey != nil {
		if err := register.Verify(u.PCRSig, u.PCRKey); err != nil {
			r.Problems = append(r.Problems, err.Error())
		}
	}
	have, list, err := unpack(u.Initrd)
	if err != nil {
		return nil, err
	}
	have = append(have, part(partKernel, u.Linux, Origin{}))
	code, err := stubCode(m.UKI)
	if err != nil {
		return nil, err
	}
	have = append(have, part(partStub, code, Origin{}))
	if m.Loader != nil {
		l, err := loaderPart(m.Loader, Origin{})
		if err != nil {
			return nil, err
		}
		have = append(have, l)
	}
	r.compare(have, list, m.Kind)
	r.Beside = m.beside(r.ours())
	for i := range r.Parts {
		switch p := &r.Parts[i]; p.Path {
		case partsPath:
			p.Origin = r.ours() // the list cannot have itself
		case partLoader:
			p.Size = int64(len(m.Loader)) // as it is here; its digest is without a signature
		}
	}
	return r, nil
}

// ours is the origin of what was made with the image, as its init was.
func (r *Report) ours() Origin {
	for _, p := range r.Parts {
		if p.Path == "/init" {
			return p.Origin
		}
	}
	return Origin{}
}

// beside lists the files of the boot partition that belong to no image.
func (m *Medium) beside(ours Origin) []Part {
	all := []Part{}
	if m.conf != nil {
		all = append(all, part("esp:"+confPath, m.conf, ours))
	}
	for name, b := range m.Keys {
		all = append(all, part("esp:"+path.Join(keysDir, name), b, Origin{Name: "keys-of-the-maker"}))
	}
	if m.Seed != nil {
		all = append(all, part("esp:"+seedPath, m.Seed, Origin{Name: "seed-of-the-node"}))
	}
	slices.SortFunc(all, func(a, b Part) int { return strings.Compare(a.Path, b.Path) })
	return all
}

// InspectAll does the same for each UKI of one boot partition. They share the
// loader, which an update leaves as it is: it has to be on the list of one.
func InspectAll(all []*Medium) ([]*Report, error) {
	foreign := func(problem string) bool { return strings.HasPrefix(problem, partLoader+":") }
	var reports []*Report
	listed := false
	for _, m := range all {
		r, err := Inspect(m)
		if err != nil && m.Path != "" {
			return nil, fmt.Errorf("%s: %w", m.Path, err)
		}
		if err != nil {
			return nil, err
		}
		listed = listed || !slices.ContainsFunc(r.Problems, foreign)
		reports = append(reports, r)
	}
	for _, r := range reports {
		if listed {
			r.Problems = slices.DeleteFunc(r.Problems, foreign)
		}
	}
	return reports, nil
}

func (r *Report) compare(have, list []Part, kind string) {
	want := map[string]Part{}
	for _, p := range list {
		want[p.Path] = p
	}
	for _, p := range have {
		w, listed := want[p.Path]
		delete(want, p.Path)
		switch {
		case !listed && p.Path != partsPath:
			r.Problems = append(r.Problems, p.Path+": not on the image's own list")
		case listed && (w.SHA256 != p.SHA256 || w.Size != p.Size):
			r.Problems = append(r.Problems, fmt.Sprintf("%s: has SHA-256 %s, the list says %s", p.Path, p.SHA256, w.SHA256))
		}
		p.Origin = w.Origin
		r.Parts = append(r.Parts, p)
	}
	if kind == KindUKI {
		delete(want, partLoader)
	}
	for path := range want {
		r.Problems = append(r.Problems, path+": on the list, but not there")
	}
	slices.Sort(r.Problems)
	slices.SortFunc(r.Parts, func(a, b Part) int { return strings.Compare(a.Path, b.Path) })
}

// unpack lists the regular files of an initramfs, those of the archive within
// among them, and what its list says.
func unpack(initrd []byte) (have, list []Part, err error) {
	take := func(r cpio.Record, content []byte) error {
		p := part("/"+r.Name, content, Origin{})
		have = append(have, p)
		if p.Path == partsPath {
			if err := json.Unmarshal(content, &list); err != nil {
				return fmt.Errorf("%s: %w", partsPath, err)
			}
		}
		return nil
	}
	err = eachFile(initrd, func(r cpio.Record, content []byte) error {
		if "/"+r.Name != kernel.HypervisorArchive {
			return take(r, content)
		}
		if err := eachFile(content, take); err != nil {
			return fmt.Errorf("%s: %w", r.Name, err)
		}
		return nil
	})
	if err != nil {
		return nil, nil, fmt.Errorf("initramfs: %w", err)
	}
	if list == nil {
		return nil, nil, fmt.Errorf("initramfs: %w: no %s", ErrMedium, partsPath)
	}
	return have, list, nil
}

// seen remembers how far an archive was read.
type seen struct {
	io.ReaderAt
	end int64
}

func (s *seen) ReadAt(b []byte, off int64) (int, error) {
	n, err := s.ReaderAt.ReadAt(b, off)
	s.end = max(s.end, off+int64(n))
	return n, err
}

// eachFile gives the regular files of a compressed archive, and refuses one
// behind which another stands: the kernel would unpack that as well.
func eachFile(archive []byte, take func(r cpio.Record, content []byte) error) error {
	plain, err := unpacked(archive, maxInitramfs)
	if err != nil {
		return err
	}
	r := &seen{ReaderAt: bytes.NewReader(plain)}
	err = cpio.ForEachRecord(cpio.Newc.Reader(r), func(rec cpio.Record) error {
		if rec.Mode&cpio.S_IFMT != cpio.S_IFREG {
			return nil
		}
		content, err := io.ReadAll(io.NewSectionReader(rec.ReaderAt, 0, int64(rec.FileSize)))
		if err != nil {
			return fmt.Errorf("%s: %w", rec.Name, err)
		}
		return take(rec, content)
	})
	if err == nil && !zeros(plain[r.end:]) {
		err = errors.New("something stands behind its last file")
	}
	return err
}

// stubCode is what every UKI shares with the stub that it was built on.
func stubCode(b []byte) ([]byte, error) {
	f, err := pe.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrStub, err)
	}
	s := f.Section(".text")
	if s == nil {
		return nil, fmt.Errorf("%w: no .text", ErrStub)
	}
	code, err := s.Data()
	if err != nil || len(code) == 0 {
		return nil, errors.Join(ErrStub, err)
	}
	return code, nil
}
