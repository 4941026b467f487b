// SPDX-License-Identifier: Apache-2.0

package sbom

import (
	"bufio"
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
)

// maxPiece bounds what a reader holds of a database at a time: a line, or a
// value of JSON. What has a longer one is Unread.
const maxPiece = 1 << 20

// reader reads a database and adds what it lists; false means that it could
// not.
type reader func(in *input) bool

// input is one database being read. It is never in memory as a whole.
type input struct {
	*io.SectionReader
	file   string // its path
	distro string // of the image
	cut    bool   // a line was too long, or the file could not be read
	keep   func(Package)
	forget func() // all that was added
}

func newInput(data io.ReaderAt, off, size int64, file, distro string) *input {
	return &input{SectionReader: io.NewSectionReader(data, off, size), file: file, distro: distro, keep: func(Package) {}, forget: func() {}}
}

// add adds a package that the database lists. It is not part of a larger
// string afterwards.
func (in *input) add(p Package) {
	for _, s := range []*string{&p.Name, &p.Space, &p.Version, &p.Arch, &p.Epoch} {
		*s = strings.Clone(*s)
	}
	p.Source = in.file
	in.keep(p)
}

// lines gives the lines without their ends.
func (in *input) lines() iter.Seq[string] {
	return func(yield func(string) bool) {
		s := bufio.NewScanner(in)
		s.Buffer(make([]byte, 0, 4<<10), maxPiece)
		for s.Scan() {
			if !yield(strings.TrimRight(s.Text(), "\r")) {
				return
			}
		}
		in.cut = in.cut || s.Err() != nil
	}
}

var (
	errPiece = errors.New("a value is too long")
	errKind  = errors.New("not the kind of value that stands there")
	errDeep  = errors.New("too deep")
)

// maxDepth bounds how deep JSON is followed.
const maxDepth = 1000

// pieces reads JSON value by value.
type pieces struct {
	dec   *json.Decoder
	r     io.Reader
	left  int // bytes until the value must have ended
	depth int
}

// json reads the database's bytes, or what a filter makes of them.
func (in *input) json(filter func(io.Reader) io.Reader) *pieces {
	p := &pieces{r: in, left: maxPiece}
	if filter != nil {
		p.r = filter(in)
	}
	p.dec = json.NewDecoder(p)
	return p
}

// Read implements io.Reader for the decoder.
func (p *pieces) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, errPiece
	}
	n, err := p.r.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}

func (p *pieces) token() (json.Token, error) {
	t, err := p.dec.Token()
	p.left = maxPiece
	return t, err
}

// decode reads the next value whole.
func (p *pieces) decode(v any) error {
	err := p.dec.Decode(v)
	p.left = maxPiece
	return err
}

// open reads the beginning of an object or array; null is none.
func (p *pieces) open(kind json.Delim) (bool, error) {
	t, err := p.token()
	if err != nil || t == nil {
		return false, err
	}
	if t != kind {
		return false, errKind
	}
	if p.depth++; p.depth > maxDepth {
		return false, errDeep
	}
	return true, nil
}

func (p *pieces) close() error {
	p.depth--
	_, err := p.token()
	return err
}

// object calls field for each field; it reads the value. some is false for
// null.
func (p *pieces) object(field func(name string) error) (some bool, err error) {
	if some, err = p.open('{'); !some || err != nil {
		return false, err
	}
	for p.dec.More() {
		t, err := p.token()
		if err != nil {
			return true, err
		}
		name, ok := t.(string)
		if !ok {
			return true, errKind
		}
		if err := field(name); err != nil {
			return true, err
		}
	}
	return true, p.close()
}

// array calls value for each value; it reads it.
func (p *pieces) array(value func() error) error {
	if some, err := p.open('['); !some || err != nil {
		return err
	}
	for p.dec.More() {
		if err := value(); err != nil {
			return err
		}
	}
	return p.close()
}

// skip reads the next value and forgets it.
func (p *pieces) skip() error {
	for depth := 0; ; {
		t, err := p.token()
		if err != nil {
			return err
		}
		switch t {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		if depth > maxDepth {
			return errDeep
		}
		if depth == 0 {
			return nil
		}
	}
}

// whole reads an object that is all there is.
func (p *pieces) whole(field func(name string) error) bool {
	if _, err := p.object(field); err != nil {
		return false
	}
	_, err := p.token()
	return errors.Is(err, io.EOF)
}
